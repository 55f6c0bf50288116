// src/player_worklet.ts
var JITTER = 1440;
var LONGEST_WAIT = 2880;
var FADE = 120;
var REPORT = 960;
var BLOCK = 128;
var AUDIBLE = 3e-3;
var Player = class extends AudioWorkletProcessor {
  queue = [];
  offset = 0;
  queued = 0;
  running = false;
  ended = true;
  waited = 0;
  fade = 0;
  item = "";
  played = 0;
  heard = false;
  gaps = 0;
  energy = 0;
  sinceReport = 0;
  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.take(data);
  }
  process(_, outputs) {
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
  take(command) {
    if (command.kind === "end") this.ended = true;
    if (command.kind === "flush") this.flush();
    if (command.kind !== "audio") return;
    if (this.fade > 0) this.drop();
    if (command.item !== this.item) {
      this.item = command.item;
      this.played = -this.queued;
      this.heard = false;
    }
    this.ended = false;
    this.queue.push(command.samples);
    this.queued += command.samples.length;
  }
  /** Start playback once enough is queued. */
  start(block) {
    if (this.running || this.queued === 0) return;
    this.waited += block;
    if (this.queued >= JITTER || this.ended || this.waited >= LONGEST_WAIT) {
      this.running = true;
      this.waited = 0;
    }
  }
  next() {
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
  flush() {
    if (this.ended && this.queued === 0) return;
    if (this.running && this.queued > FADE) this.fade = FADE;
    else if (this.fade === 0) this.drop();
    this.report({ kind: "flushed", item: this.item, played: Math.max(0, this.played + this.fade) });
  }
  drop() {
    this.queue = [];
    this.offset = this.queued = this.waited = this.fade = 0;
    this.running = false;
    this.ended = true;
  }
  progress() {
    const level = Math.sqrt(this.energy / this.sinceReport);
    const playing = this.played > 0 && !(this.ended && this.queued === 0);
    const at = currentTime + BLOCK / sampleRate;
    this.report({ kind: "progress", item: this.item, played: this.played, at, playing, level, gaps: this.gaps });
    this.energy = this.sinceReport = 0;
  }
  report(report) {
    this.port.postMessage(report);
  }
};
registerProcessor("player", Player);
