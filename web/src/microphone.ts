/** The microphone: a track for WebRTC, and frames of 20 ms of 24 kHz PCM16. */
import { CapturedStream } from "./captured_stream";

const CONSTRAINTS: MediaStreamConstraints = {
  audio: {
    channelCount: 1,
    sampleRate: 48000, // Opus's own
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
  },
};

export class Microphone {
  private constructor(
    private readonly stream: MediaStream,
    private readonly captured: CapturedStream,
  ) {}

  /** Ask for the microphone and pass each frame on. Raises a DOMException if the user or the system refuses. */
  static async open(context: AudioContext, onFrame: (pcm: ArrayBuffer) => void): Promise<Microphone> {
    const stream = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
    return new Microphone(stream, await CapturedStream.open(context, stream, onFrame));
  }

  get track(): MediaStreamTrack {
    return this.stream.getAudioTracks()[0]!;
  }

  /** Mute sends silence: the server needs audio without gaps. */
  set muted(muted: boolean) {
    for (const track of this.stream.getTracks()) track.enabled = !muted;
  }

  close(): void {
    this.captured.close();
    for (const track of this.stream.getTracks()) track.stop();
  }
}
