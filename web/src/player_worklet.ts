/** Audio worklet of the loudspeaker: plays replies through a small jitter buffer, and stops at once when asked to. */
import type { PlayerCommand, PlayerReport } from "./player_messages";

/** Audio that must be queued before playback starts: 60 ms. A stall of the network shorter than that is not heard. */
const JITTER = 1440;
/** Time after which queued audio is played in any case, so that a short reply is not held: 120 ms. */
const LONGEST_WAIT = 2880;
/** Length of the fade at a stop, 5 ms, which avoids a click. */
const FADE = 120;
/** Interval between two reports: 40 ms. */
const REPORT = 960;
/** Samples that a browser asks for at once. */
const BLOCK = 128;
/** Root mean square from which a block counts as audible: about -50 dB. */
const AUDIBLE = 0.003;

class Player extends AudioWorkletProcessor {
  private queue: Float32Array[] = [];
  private offset = 0;
  private queued = 0;
  private running = false;
  private ended = true;
  private waited = 0;
  private fade = 0;
  private item = "";
  private played = 0;
  private heard = false;
  private gaps = 0;
  private energy = 0;
  private sinceReport = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }: MessageEvent<PlayerCommand>) => this.take(data);
  }

  process(_: Float32Array[][], outputs: Float32Array[][]): boolean {
    const output = outputs[0]?.[0];
    if (!output) return true;
    this.start(output.length);
    let energy = 0;
    for (let i = 0; i < output.length && this.running; i++) {
      const sample = this.next();
      output[i] = sample;
      energy += sample * sample;
    }
    if (!this.heard && energy / output.length > AUDIBLE ** 2) {
      this.heard = true;
      this.report({ kind: "audible", item: this.item, at: currentTime });
    }
    this.energy += energy;
    this.sinceReport += output.length;
    if (this.sinceReport >= REPORT) this.progress();
    return true;
  }

  private take(command: PlayerCommand): void {
    if (command.kind === "end") this.ended = true;
    if (command.kind === "flush") this.flush();
    if (command.kind !== "audio") return;
    // Audio behind a flush belongs to what is said next, not to what is fading out.
    if (this.fade > 0) this.drop();
    if (command.item !== this.item) {
      // The server sends a new reply only after the old one; what is left of the old one is played first.
      this.item = command.item;
      this.played = -this.queued;
      this.heard = false;
    }
    this.ended = false;
    this.queue.push(command.samples);
    this.queued += command.samples.length;
  }

  /** Start playback once enough is queued. */
  private start(block: number): void {
    if (this.running || this.queued === 0) return;
    this.waited += block;
    if (this.queued >= JITTER || this.ended || this.waited >= LONGEST_WAIT) {
      this.running = true;
      this.waited = 0;
    }
  }

  private next(): number {
    const chunk = this.queue[0];
    if (!chunk) {
      this.running = false;
      if (!this.ended) this.gaps++;
      return 0;
    }
    const sample = chunk[this.offset++] ?? 0;
    if (this.offset >= chunk.length) {
      this.queue.shift();
      this.offset = 0;
    }
    this.queued--;
    this.played++;
    if (this.fade === 0) return sample;
    const faded = sample * (this.fade / FADE);
    if (--this.fade === 0) this.drop();
    return faded;
  }

  private flush(): void {
    // Nothing to stop: the reply was played to its end, or was stopped before.
    if (this.ended && this.queued === 0) return;
    if (this.running && this.queued > FADE) this.fade = FADE;
    else if (this.fade === 0) this.drop();
    this.report({ kind: "flushed", item: this.item, played: Math.max(0, this.played + this.fade) });
  }

  private drop(): void {
    this.queue = [];
    this.offset = this.queued = this.waited = this.fade = 0;
    this.running = false;
    this.ended = true;
  }

  private progress(): void {
    const level = Math.sqrt(this.energy / this.sinceReport);
    const playing = this.played > 0 && !(this.ended && this.queued === 0);
    const at = currentTime + BLOCK / sampleRate;
    this.report({ kind: "progress", item: this.item, played: this.played, at, playing, level, gaps: this.gaps });
    this.energy = this.sinceReport = 0;
  }

  private report(report: PlayerReport): void {
    this.port.postMessage(report);
  }
}

registerProcessor("player", Player);
