// Types of the global scope of audio worklets, which TypeScript's own library does not have.

declare abstract class AudioWorkletProcessor {
  readonly port: MessagePort;
  abstract process(inputs: Float32Array[][], outputs: Float32Array[][]): boolean;
}
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;
/** Sample rate of the audio context in Hz. */
declare const sampleRate: number;
/** Time of the block that is being computed, in seconds on the clock of the audio context. */
declare const currentTime: number;
