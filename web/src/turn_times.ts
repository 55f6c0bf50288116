/**
 * Times of each turn, for the waterfall and the percentiles of the session.
 *
 * All times are milliseconds of performance.now(). Voice-to-voice is measured here: from the end of the caller's speech,
 * which the server found in the audio that this page sent, to the first audible sample of the reply at the loudspeaker. If a
 * filler or an apology comes first, it ends where the answer begins, as the server's own measure does.
 *
 * Over WebRTC positions in the server's audio say only roughly when it was captured, because silence is not sent. So
 * voice-to-voice is what the server measured, one round trip, and the time from the server's word that it has begun to send
 * to the first audible sample.
 */
import { type ServerEvent, list, number, object, text } from "./events";

export interface Share {
  label: string;
  ms: number;
}

export interface TurnTimes {
  /** User item of the turn. */
  item: string;
  /** Shares of the latency, in order. They sum to the voice-to-voice latency, so far or in the end. */
  shares: Share[];
  /** Voice-to-voice latency. Null while the turn is running, or if nothing was heard. */
  totalMs: number | null;
  /** What the server measured up to the first audio that it sent. */
  serverMs: number | null;
  /** Remarks about the turn, for example that the reply was interrupted. */
  notes: string[];
}

const STAGES: Record<string, string> = {
  silence: "Silence heard",
  endpoint: "End of turn",
  stt: "Speech to text",
  llm_first_token: "Language model",
  first_segment: "First phrase",
  tts_first_audio: "Voice",
  delivery: "Delivery",
};

interface Marks {
  item: string;
  spokenAt: number;
  endedAt: number;
  repliedAt?: number;
  receivedAt?: number;
  audibleAt?: number;
}

export class TurnMeter {
  /** Voice-to-voice latencies of the session. */
  readonly totals: number[] = [];
  readonly serverTotals: number[] = [];
  private marks: Marks | null = null;
  private readonly audibleAt = new Map<string, number>();

  /**
   * `capturedAt` returns when audio at a position of the sent stream was captured, and `playedAt` when a position of an
   * item was played. `roundTripMs` returns the round trip over WebRTC, and null over a WebSocket.
   */
  constructor(
    private readonly capturedAt: (streamMs: number) => number | null,
    private readonly playedAt: (item: string, ms: number) => number | undefined,
    private readonly roundTripMs: () => number | null = () => null,
  ) {}

  /** Note an event that arrived at `now`. Return the turn if its times have changed. */
  take(event: ServerEvent, now: number): TurnTimes | null {
    switch (event.type) {
      case "input_audio_buffer.speech_stopped": {
        const spokenAt = this.capturedAt(number(event.audio_end_ms)) ?? now;
        this.marks = { item: text(event.item_id), spokenAt, endedAt: now };
        return this.live();
      }
      case "input_audio_buffer.cleared":
        this.marks = null;
        return null;
      case "response.created":
        if (this.marks && !this.marks.repliedAt) this.marks.repliedAt = now;
        return this.live();
      case "response.output_audio.delta":
      case "output_audio_buffer.started":
        if (!this.marks || this.marks.receivedAt) return null;
        this.marks.receivedAt = now;
        return this.live();
      case "response.done":
        return this.finish(object(event.response), object(event.rejoinder ?? object(event.response).rejoinder));
      default:
        return null;
    }
  }

  /** Note when the first audible sample of a reply left the loudspeaker. */
  audible(item: string, at: number): TurnTimes | null {
    this.audibleAt.set(item, at);
    const [oldest] = this.audibleAt.keys();
    if (this.audibleAt.size > 16 && oldest) this.audibleAt.delete(oldest);
    if (!this.marks?.receivedAt || this.marks.audibleAt) return null;
    this.marks.audibleAt = at;
    return this.live();
  }

  /** The turn as far as it is known on this side, before the server's own times arrive. */
  private live(): TurnTimes | null {
    if (!this.marks) return null;
    const { item, spokenAt, endedAt, repliedAt, receivedAt, audibleAt } = this.marks;
    const shares: Share[] = [];
    let from = spokenAt;
    for (const [label, at] of [
      ["Until the turn ended", endedAt],
      ["Until the reply began", repliedAt],
      ["Until its audio arrived", receivedAt],
      ["Until it was audible", audibleAt],
    ] as const) {
      if (at === undefined) break;
      shares.push({ label, ms: Math.max(0, at - from) });
      from = Math.max(from, at);
    }
    return { item, shares, totalMs: null, serverMs: null, notes: [] };
  }

  /** The turn with the server's stages. Null if the response answers no turn or nothing of it was audible. */
  private finish(response: Record<string, unknown>, extra: Record<string, unknown>): TurnTimes | null {
    const item = text(extra.item_id);
    if (!item) return null;
    const receivedAt = this.marks?.item === item ? this.marks.receivedAt : undefined;
    if (this.marks?.item === item) this.marks = null;
    const shares = Object.entries(object(extra.stages_ms))
      .filter(([, ms]) => number(ms) > 0)
      .map(([stage, ms]) => ({ label: STAGES[stage] ?? stage, ms: number(ms) }));
    if (number(extra.unattributed_ms) >= 1) shares.push({ label: "Other", ms: number(extra.unattributed_ms) });
    const serverMs = number(extra.server_ms);
    const spokenAt = this.capturedAt(number(extra.speech_end_ms));
    const before = number(extra.answer_from_ms);
    const heardAt = list(response.output)
      .map(({ id }) => (before > 0 ? this.playedAt(text(id), before) : this.audibleAt.get(text(id))))
      .find((at) => at !== undefined);
    const roundTripMs = this.roundTripMs();
    let totalMs: number | null = null;
    if (roundTripMs === null && spokenAt !== null && heardAt !== undefined) totalMs = heardAt - spokenAt;
    if (roundTripMs !== null && receivedAt !== undefined && heardAt !== undefined) {
      totalMs = (number(extra.filler_ms) || serverMs) + roundTripMs + heardAt - receivedAt;
    }
    if (totalMs !== null && totalMs > 0) {
      this.totals.push(totalMs);
      this.serverTotals.push(serverMs);
      shares.push({ label: "Network and player", ms: Math.max(0, totalMs - serverMs) });
    }
    const notes = [];
    if (extra.interrupted) notes.push("interrupted");
    if (extra.drafted) notes.push("began before the end of the turn");
    if (extra.hedged) notes.push("second request to the language model");
    if (text(extra.cache).startsWith("hit")) notes.push("from the answer cache");
    if (extra.filler_ms) notes.push(`a filler after ${Math.round(number(extra.filler_ms))} ms`);
    return { item, shares, totalMs, serverMs, notes };
  }
}

/** Return the percentile by nearest rank. `values` must not be empty. */
export function percentile(values: number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? NaN;
}
