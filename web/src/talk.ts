/** The page: connects the buttons, the microphone, the loudspeaker, the call and what is shown of them. */
import { Call, type CallOwner, type Connection } from "./call";
import { type ServerEvent, object, text } from "./events";
import { drawPercentiles, drawTurn } from "./latency_view";
import { Loudspeaker, type LoudspeakerOwner } from "./loudspeaker";
import { levelOf } from "./captured_stream";
import { Microphone } from "./microphone";
import { RemoteVoice, type VoiceOwner } from "./remote_voice";
import * as settings from "./settings_form";
import { Transcript } from "./transcript";
import type { Way } from "./transport";
import { TurnMeter, type TurnTimes } from "./turn_times";

type Turn = "idle" | "listening" | "hearing" | "thinking" | "speaking";

const TURNS: Record<Turn, string> = {
  idle: "Ready",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  speaking: "Speaking",
};
const CONNECTIONS: Record<Connection, string> = {
  connecting: "Connecting",
  connected: "Connected",
  reconnecting: "Connection lost, connecting again",
  ended: "Not connected",
};

const WAYS: Record<Way, string> = { websocket: "WebSocket", webrtc: "WebRTC" };

const page = document.getElementById("call")!;
const talkButton = document.getElementById("talk") as HTMLButtonElement;
const muteButton = document.getElementById("mute") as HTMLButtonElement;
const transcript = new Transcript(document.getElementById("transcript")!);

function say(id: string, words: string): void {
  const place = document.getElementById(id)!;
  if (place.textContent !== words) place.textContent = words;
}

/** One conversation, from the press of the button to its end. */
class Conversation implements CallOwner, LoudspeakerOwner, VoiceOwner {
  private readonly call = new Call(this, settings.session(), settings.apiKey(), settings.way());
  private readonly meter = new TurnMeter(
    (ms) => this.call.resume.capturedAt(ms),
    (item, ms) => this.loudspeaker?.playedAt(item, ms) ?? this.remote.playedAt(item, ms),
    () => this.call.roundTripMs,
  );
  private readonly context = new AudioContext({ sampleRate: 24000, latencyHint: "interactive" });
  private microphone: Microphone | null = null;
  /** Plays replies that come in events. */
  private loudspeaker: Loudspeaker | null = null;
  /** Plays replies that come over WebRTC. */
  private readonly remote = new RemoteVoice(this.context, this);
  private userSpeaks = false;
  private turnWaits = false;
  private responses = new Set<string>();
  private loudspeakerPlays = false;
  private level = 0;
  private over = false;

  async start(): Promise<void> {
    try {
      await this.context.resume();
      this.loudspeaker = await Loudspeaker.open(this.context, this);
      this.microphone = await Microphone.open(this.context, (pcm) => this.capture(pcm));
    } catch (fault) {
      this.fail(refusalOf(fault));
      return;
    }
    if (this.over) this.microphone.close();
    else this.call.start();
  }

  end(reason = ""): void {
    this.call.hangUp(reason);
  }

  mute(muted: boolean): void {
    if (this.microphone) this.microphone.muted = muted;
  }

  change(): void {
    this.call.send({ type: "session.update", session: settings.changeable() });
  }

  // -- the call ---------------------------------------------------------------------------------------------------

  take(event: ServerEvent): void {
    const now = performance.now();
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.userSpeaks = true;
        this.loudspeaker?.stop();
        break;
      case "input_audio_buffer.speech_stopped":
        this.userSpeaks = false;
        this.turnWaits = true;
        break;
      case "input_audio_buffer.cleared":
        this.userSpeaks = this.turnWaits = false;
        break;
      case "response.created":
        this.turnWaits = false;
        this.responses.add(text(object(event.response).id));
        break;
      case "response.output_audio.delta":
        this.loudspeaker?.play(text(event.item_id), text(event.delta));
        break;
      case "response.output_audio.done":
        this.loudspeaker?.end();
        break;
      case "response.done":
        this.responses.delete(text(object(event.response).id));
        this.turnWaits = false;
        this.explain(object(event.response));
        break;
      case "rejoinder.session.resumed":
        // A new connection: what the server detects and answers there it says again.
        this.userSpeaks = this.turnWaits = false;
        this.responses.clear();
        page.dataset.resumed = String(Number(page.dataset.resumed ?? 0) + 1);
        break;
      case "error":
        say("problem", text(object(event.error).message));
    }
    this.remote.take(event);
    transcript.take(event);
    this.timed(this.meter.take(event, now));
    this.show();
  }

  connection(state: Connection, way: Way, reason: string): void {
    page.dataset.connection = state;
    page.dataset.way = way;
    if (state === "connected") say("connection", `${CONNECTIONS[state]} over ${WAYS[way]}. ${reason}`.trim());
    else say("connection", CONNECTIONS[state]);
    if (state !== "connected" || way !== "webrtc") this.remote.close();
    if (state === "ended") this.close(reason);
    this.show();
  }

  heard(): string {
    return this.loudspeaker?.heard ?? "";
  }

  track(): MediaStreamTrack {
    return this.microphone!.track;
  }

  voice(stream: MediaStream): void {
    this.remote.attach(stream).catch((fault) => this.unheard(fault));
  }

  // -- sound ------------------------------------------------------------------------------------------------------

  audible(item: string, at: number): void {
    page.dataset.heardReplies = String(Number(page.dataset.heardReplies ?? 0) + 1);
    this.timed(this.meter.audible(item, at));
  }

  stopped(item: string, ms: number): void {
    this.loudspeakerPlays = false;
    this.call.send({ type: "conversation.item.truncate", item_id: item, content_index: 0, audio_end_ms: ms });
    this.show();
  }

  progress(level: number, playing: boolean, gaps: number): void {
    this.loudspeakerPlays = playing;
    page.dataset.gaps = String(gaps);
    if (playing) this.level = level;
    this.show();
  }

  voiced(level: number): void {
    if (this.remote.playing) this.level = level;
    this.show();
  }

  unheard(fault: unknown): void {
    say("problem", refusalOf(fault));
  }

  private get playing(): boolean {
    return this.loudspeakerPlays || this.remote.playing;
  }

  private capture(pcm: ArrayBuffer): void {
    if (!this.playing) this.level = levelOf(pcm);
    this.call.append(pcm, performance.now());
  }

  // -- what is shown ----------------------------------------------------------------------------------------------

  private timed(turn: TurnTimes | null): void {
    if (!turn) return;
    drawTurn(turn);
    drawPercentiles(this.meter);
    if (turn.totalMs !== null) transcript.remark(turn.item, `answered in ${Math.round(turn.totalMs)} ms`);
  }

  /** Show why a response failed. */
  private explain(response: Record<string, unknown>): void {
    const error = object(object(response.status_details).error);
    say("problem", response.status === "failed" ? text(error.message) || `No answer: ${text(error.code)}.` : "");
  }

  private get turn(): Turn {
    if (this.over || page.dataset.connection === "connecting") return "idle";
    if (this.userSpeaks) return "hearing";
    if (this.playing) return "speaking";
    return this.turnWaits || this.responses.size ? "thinking" : "listening";
  }

  private show(): void {
    page.dataset.turn = this.turn;
    say("turn-text", TURNS[this.turn]);
    page.style.setProperty("--level", Math.min(1, this.level * 6).toFixed(2));
  }

  private fail(reason: string): void {
    this.connection("ended", settings.way(), reason);
  }

  private close(reason: string): void {
    this.over = true;
    this.microphone?.close();
    this.loudspeaker?.stop();
    void this.context.close();
    this.level = 0;
    say("problem", reason);
    ended();
  }
}

function refusalOf(fault: unknown): string {
  const name = fault instanceof DOMException ? fault.name : "";
  if (name === "NotAllowedError") return "The microphone is not allowed. Allow it in the browser's settings of this page.";
  if (name === "NotFoundError") return "There is no microphone. Connect one and try again.";
  return `The microphone or the loudspeaker cannot be used: ${String(fault)}`;
}

let current: Conversation | null = null;

function ended(): void {
  current = null;
  talkButton.textContent = "Start talking";
  talkButton.classList.add("primary");
  muteButton.disabled = true;
  setMuted(false);
}

function setMuted(muted: boolean): void {
  muteButton.setAttribute("aria-pressed", String(muted));
  current?.mute(muted);
}

talkButton.addEventListener("click", () => {
  if (current) {
    current.end();
    return;
  }
  say("problem", "");
  if (!window.isSecureContext || !navigator.mediaDevices) {
    say("problem", "A browser gives the microphone only to pages over https, or from localhost.");
    return;
  }
  talkButton.textContent = "Hang up";
  talkButton.classList.remove("primary");
  muteButton.disabled = false;
  current = new Conversation();
  void current.start();
});
muteButton.addEventListener("click", () => setMuted(muteButton.getAttribute("aria-pressed") !== "true"));
settings.watch(() => current?.change());
window.addEventListener("pagehide", () => current?.end());
