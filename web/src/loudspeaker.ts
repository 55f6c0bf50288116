/** The loudspeaker: plays the audio of replies and knows how much of which item was played. */
import type { PlayerCommand, PlayerReport } from "./player_messages";

const SAMPLES_PER_MS = 24;
/** Points of playback that are kept: 80 s. */
const COURSE = 2000;

export interface LoudspeakerOwner {
  /** The first audible sample of an item leaves the loudspeaker at `at`, in milliseconds of performance.now(). */
  audible(item: string, at: number): void;
  /** Playback was stopped when `ms` of the item had been played. */
  stopped(item: string, ms: number): void;
  /** Several times a second: level from 0 to 1, whether a reply is played, and the number of gaps so far. */
  progress(level: number, playing: boolean, gaps: number): void;
}

export class Loudspeaker {
  private item = "";
  /** Milliseconds of the item that were played or are queued. */
  private receivedMs = 0;
  /** Milliseconds of the item that arrived after the newest stop. */
  private sinceStopMs = 0;
  /** When which part of an item had been played: milliseconds of the item, and of performance.now(). */
  private course: { item: string; ms: number; at: number }[] = [];

  private constructor(
    private readonly context: AudioContext,
    private readonly node: AudioWorkletNode,
    private readonly owner: LoudspeakerOwner,
  ) {
    node.port.onmessage = ({ data }: MessageEvent<PlayerReport>) => this.take(data);
  }

  static async open(context: AudioContext, owner: LoudspeakerOwner): Promise<Loudspeaker> {
    await context.audioWorklet.addModule("player_worklet.js");
    const node = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    node.connect(context.destination);
    return new Loudspeaker(context, node, owner);
  }

  /** Queue audio: base64 of 24 kHz PCM16. */
  play(item: string, base64: string): void {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const samples = new Float32Array(bytes.length >> 1);
    for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(i * 2, true) / 32768;
    if (item !== this.item) this.receivedMs = this.sinceStopMs = 0;
    this.item = item;
    this.receivedMs += samples.length / SAMPLES_PER_MS;
    this.sinceStopMs += samples.length / SAMPLES_PER_MS;
    this.post({ kind: "audio", item, samples });
  }

  /** Say that the reply has no more audio. */
  end(): void {
    this.post({ kind: "end" });
  }

  /** Stop at once. `stopped` is called with the position if something was playing. */
  stop(): void {
    this.sinceStopMs = 0;
    this.post({ kind: "flush" });
  }

  /** How much of the newest reply was played or will be, as "ITEM:MS". Empty before the first reply. */
  get heard(): string {
    return this.item && `${this.item}:${Math.round(this.receivedMs)}`;
  }

  private take(report: PlayerReport): void {
    if (report.kind === "audible") this.owner.audible(report.item, this.leavesAt(report.at));
    if (report.kind === "progress") this.follow(report.item, report.played / SAMPLES_PER_MS, this.leavesAt(report.at));
    if (report.kind === "progress") this.owner.progress(report.level, report.playing, report.gaps);
    if (report.kind !== "flushed" || !report.item) return;
    const ms = Math.round(report.played / SAMPLES_PER_MS);
    // Audio that arrived while the worklet's answer was on its way comes after what was played.
    if (report.item === this.item) this.receivedMs = ms + this.sinceStopMs;
    this.owner.stopped(report.item, ms);
  }

  /** Return when a position of an item was played, in milliseconds of performance.now(). Undefined if it was not. */
  playedAt(item: string, ms: number): number | undefined {
    const after = this.course.find((point) => point.item === item && point.ms > ms);
    return after && after.at - (after.ms - ms);
  }

  private follow(item: string, ms: number, at: number): void {
    if (!item || ms === this.course.at(-1)?.ms) return;
    this.course.push({ item, ms, at });
    if (this.course.length > COURSE) this.course.shift();
  }

  /** Return when a sample of the context leaves the loudspeaker, in milliseconds of performance.now(). */
  private leavesAt(contextS: number): number {
    const { contextTime, performanceTime } = this.context.getOutputTimestamp();
    if (contextTime && performanceTime) return performanceTime + (contextS - contextTime) * 1000;
    return performance.now() + (this.context.outputLatency || 0) * 1000;
  }

  private post(command: PlayerCommand): void {
    this.node.port.postMessage(command);
  }
}
