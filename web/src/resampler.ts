/** Converts audio to a lower sample rate, with a windowed sinc low-pass filter. */

const TAPS = 32;
const PHASES = 256;

export class Resampler {
  private readonly kernel = new Float32Array((TAPS * 2 + 1) * PHASES + 1);
  private history = new Float32Array(TAPS * 2);
  private position = TAPS;
  private readonly step: number;

  /** `from` and `to` are sample rates in Hz. */
  constructor(from: number, to: number) {
    this.step = from / to;
    const cutoff = Math.min(1, to / from) * 0.95;
    for (let i = 0; i < this.kernel.length; i++) {
      const x = i / PHASES - TAPS;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / (TAPS + 1));
      const angle = Math.PI * x * cutoff;
      this.kernel[i] = cutoff * (x === 0 ? 1 : Math.sin(angle) / angle) * window;
    }
  }

  /** Return the converted samples that this block of input completes. */
  convert(input: Float32Array): Float32Array {
    if (this.step === 1) return input.slice();
    const data = new Float32Array(this.history.length + input.length);
    data.set(this.history);
    data.set(input, this.history.length);
    const output: number[] = [];
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
}
