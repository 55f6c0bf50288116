/**
 * What the page keeps so that its conversation can continue on another connection.
 *
 * The server has no audio of the caller after a lost connection, so the page sends again what the server had not yet
 * taken into the conversation. loadtest/callers/resume_state.py is the same for Python clients.
 */
import { type ServerEvent, number, object, text } from "./events";

export const FRAME_MS = 20;
/** Newest frames that are kept: one minute of audio. */
const KEPT = 3000;
/** Frames before a detected start of speech that are sent with it: half a second, since detection is late. */
const LEAD_IN = 25;
/** Frames that are sent again if no speech was detected in them: one second, which may hold the start of speech. */
const QUIET = 50;
/** Newest utterances whose place in the audio is kept. */
const UTTERANCES = 8;

/** Place of an utterance in the caller's audio: numbers of its first frame and of the frame after its last one. */
interface Utterance {
  start: number;
  end: number;
}

export class ResumeState {
  /** Token of the session. Empty if the server does not offer to continue it. */
  token = "";
  private firstFrame = 0;
  private frames: { audio: string; at: number }[] = [];
  private count = 0;
  private speechFrom: number | null = null;
  private clearedAt = 0;
  private stopped: [string, Utterance] | null = null;
  private committed = new Map<string, Utterance>();

  /** Keep a frame (base64) that was captured at `at`, in milliseconds of performance.now(). */
  sent(audio: string, at: number): void {
    this.frames.push({ audio, at });
    if (this.frames.length > KEPT) this.frames.shift();
    this.count++;
  }

  /** Return when the audio at a position of this connection's stream was captured, or null if it is too old. */
  capturedAt(streamMs: number): number | null {
    const frame = this.frame(streamMs);
    return this.frames[frame - (this.count - this.frames.length)]?.at ?? null;
  }

  /** Note what a server event says about the token and the caller's speech. */
  take(event: ServerEvent): void {
    const item = text(event.item_id);
    switch (event.type) {
      case "session.created":
        this.token = text(object(event.rejoinder).resume_token) || this.token;
        break;
      case "input_audio_buffer.speech_started":
        this.speechFrom = this.frame(number(event.audio_start_ms));
        break;
      case "input_audio_buffer.speech_stopped": {
        const end = this.frame(number(event.audio_end_ms));
        this.stopped = [item, { start: this.speechFrom ?? end, end }];
        break;
      }
      case "input_audio_buffer.committed": {
        const whole = { start: this.speechFrom ?? this.count, end: this.count };
        this.committed.set(item, this.stopped?.[0] === item ? this.stopped[1] : whole);
        this.speechFrom = this.stopped = null;
        for (const oldest of this.committed.keys()) {
          if (this.committed.size <= UTTERANCES) break;
          this.committed.delete(oldest);
        }
        break;
      }
      case "input_audio_buffer.cleared":
        this.speechFrom = this.stopped = null;
        this.clearedAt = this.count;
    }
  }

  /** Begin the audio of a connection with what is captured from now on. Nothing is sent again over WebRTC. */
  begin(): void {
    this.firstFrame = this.clearedAt = this.count;
    this.committed.clear();
    this.speechFrom = this.stopped = null;
  }

  /** Return the frames to send again at the start of a connection, which begin its audio. */
  resend(event: ServerEvent): string[] {
    const known = this.committed.get(text(event.audio_after_item_id));
    const knownEnd = known?.end ?? 0;
    const speech = [...this.committed.values()].filter(({ end }) => end > knownEnd).map(({ start }) => start);
    if (this.speechFrom !== null) speech.push(this.speechFrom);
    const oldest = this.count - this.frames.length;
    const wanted = Math.min(this.count - QUIET, ...speech.map((start) => start - LEAD_IN));
    const start = Math.max(wanted, knownEnd, this.clearedAt, oldest);
    this.firstFrame = start;
    for (const [item, kept] of this.committed) if (kept !== known) this.committed.delete(item);
    return this.frames.slice(start - oldest).map(({ audio }) => audio);
  }

  /** Return the number of the frame at a position of this connection's stream, at most the number of frames sent. */
  private frame(streamMs: number): number {
    return Math.min(this.count, Math.round(streamMs / FRAME_MS) + this.firstFrame);
  }
}

/** Return the milliseconds to wait before an attempt to connect again: random, up to 50 ms at first and 2 s later. */
export function pauseMs(attempt: number): number {
  return Math.random() * Math.min(2000, 50 * 2 ** attempt);
}
