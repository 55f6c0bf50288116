/** The microphone: frames of 20 ms of 24 kHz PCM16, from an audio worklet. */

const CONSTRAINTS: MediaStreamConstraints = {
  audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
};

export class Microphone {
  private constructor(
    private readonly stream: MediaStream,
    private readonly node: AudioWorkletNode,
    private readonly own: AudioContext | null,
  ) {}

  /** Ask for the microphone and pass each frame on. Raises a DOMException if the user or the system refuses. */
  static async open(context: AudioContext, onFrame: (pcm: ArrayBuffer) => void): Promise<Microphone> {
    const stream = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
    let source: MediaStreamAudioSourceNode;
    let own: AudioContext | null = null;
    try {
      source = context.createMediaStreamSource(stream);
    } catch {
      // Firefox connects a microphone only to a context with the microphone's own sample rate; the worklet converts.
      own = new AudioContext();
      source = own.createMediaStreamSource(stream);
    }
    const used = own ?? context;
    await used.audioWorklet.addModule("capture_worklet.js");
    const node = new AudioWorkletNode(used, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => onFrame(data);
    source.connect(node);
    return new Microphone(stream, node, own);
  }

  /** Mute sends silence: the server needs audio without gaps. */
  set muted(muted: boolean) {
    for (const track of this.stream.getTracks()) track.enabled = !muted;
  }

  close(): void {
    this.node.port.onmessage = null;
    for (const track of this.stream.getTracks()) track.stop();
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
