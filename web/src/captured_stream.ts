/** The audio of a stream as frames of 20 ms of 24 kHz PCM16, from an audio worklet. */

export class CapturedStream {
  private constructor(
    private readonly node: AudioWorkletNode,
    private readonly own: AudioContext | null,
  ) {}

  /** Pass each frame of a stream on. */
  static async open(
    context: AudioContext,
    stream: MediaStream,
    onFrame: (pcm: ArrayBuffer) => void,
  ): Promise<CapturedStream> {
    let source: MediaStreamAudioSourceNode;
    let own: AudioContext | null = null;
    try {
      source = context.createMediaStreamSource(stream);
    } catch {
      // Firefox connects a stream only to a context with the stream's own sample rate; the worklet converts.
      own = new AudioContext();
      source = own.createMediaStreamSource(stream);
    }
    const used = own ?? context;
    await used.audioWorklet.addModule("capture_worklet.js");
    const node = new AudioWorkletNode(used, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => onFrame(data);
    source.connect(node);
    return new CapturedStream(node, own);
  }

  close(): void {
    this.node.port.onmessage = null;
    this.node.disconnect();
    void this.own?.close();
  }
}

/** Return the root mean square of a frame of PCM16, from 0 to 1. */
export function levelOf(pcm: ArrayBuffer): number {
  const samples = new Int16Array(pcm);
  let energy = 0;
  for (const sample of samples) energy += (sample / 32768) ** 2;
  return Math.sqrt(energy / samples.length);
}
