// src/resampler.ts
var TAPS = 32;
var PHASES = 256;
var Resampler = class {
  kernel = new Float32Array((TAPS * 2 + 1) * PHASES + 1);
  history = new Float32Array(TAPS * 2);
  position = TAPS;
  step;
  /** `from` and `to` are sample rates in Hz. */
  constructor(from, to) {
    this.step = from / to;
    const cutoff = Math.min(1, to / from) * 0.95;
    for (let i = 0; i < this.kernel.length; i++) {
      const x = i / PHASES - TAPS;
      const window = 0.5 + 0.5 * Math.cos(Math.PI * x / (TAPS + 1));
      const angle = Math.PI * x * cutoff;
      this.kernel[i] = cutoff * (x === 0 ? 1 : Math.sin(angle) / angle) * window;
    }
  }
  /** Return the converted samples that this block of input completes. */
  convert(input) {
    if (this.step === 1) return input.slice();
    const data = new Float32Array(this.history.length + input.length);
    data.set(this.history);
    data.set(input, this.history.length);
    const output = [];
    while (this.position + TAPS < data.length) {
      const centre = Math.floor(this.position);
      let sum = 0;
      for (let i = centre - TAPS + 1; i <= centre + TAPS; i++) {
        sum += (data[i] ?? 0) * (this.kernel[Math.round((i - this.position + TAPS) * PHASES)] ?? 0);
      }
      output.push(sum);
      this.position += this.step;
    }
    this.history = data.slice(data.length - TAPS * 2);
    this.position -= data.length - TAPS * 2;
    return Float32Array.from(output);
  }
};

// src/capture_worklet.ts
var RATE = 24e3;
var FRAME = 480;
var Capture = class extends AudioWorkletProcessor {
  resampler = new Resampler(sampleRate, RATE);
  frame = new Int16Array(FRAME);
  filled = 0;
  process(inputs) {
    const input = inputs[0]?.[0];
    if (!input) return true;
    for (const sample of this.resampler.convert(input)) {
      this.frame[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled === FRAME) {
        this.port.postMessage(this.frame.buffer, [this.frame.buffer]);
        this.frame = new Int16Array(FRAME);
        this.filled = 0;
      }
    }
    return true;
  }
};
registerProcessor("capture", Capture);
