/** The agent's voice over WebRTC: the browser plays the track, and the server says which reply it is sending. */
import { CapturedStream, levelOf } from "./captured_stream";
import { type ServerEvent, object, text } from "./events";

/** Root mean square from which a frame counts as audible: about -50 dB. */
const AUDIBLE = 0.003;
const FRAME_MS = 20;

export interface VoiceOwner {
  /** The first audible sample of an item leaves the loudspeaker at `at`, in milliseconds of performance.now(). */
  audible(item: string, at: number): void;
  /** Every 20 ms: level of the voice from 0 to 1. */
  voiced(level: number): void;
  /** The browser does not play the voice. */
  unheard(fault: unknown): void;
}

export class RemoteVoice {
  /** True from the first packet of a reply to its last one. */
  playing = false;
  private readonly element = new Audio();
  private captured: CapturedStream | null = null;
  /** Newest message of the newest response that has one. */
  private newest = { response: "", item: "" };
  /** Reply that is played or was played last, and when its first audible sample was. */
  private reply: { item: string; at: number | null } = { item: "", at: null };

  constructor(
    private readonly context: AudioContext,
    private readonly owner: VoiceOwner,
  ) {}

  /** Play the track of a connection, in place of an earlier one. */
  async attach(stream: MediaStream): Promise<void> {
    this.close();
    this.element.srcObject = stream;
    // A browser plays a track only when its first packet has arrived. Until then a call may end.
    this.element.play().catch((fault) => this.element.srcObject === stream && this.owner.unheard(fault));
    const captured = await CapturedStream.open(this.context, stream, (pcm) => this.measure(pcm));
    if (this.element.srcObject === stream) this.captured = captured;
    else captured.close();
  }

  take(event: ServerEvent): void {
    switch (event.type) {
      case "response.output_item.added":
        if (object(event.item).type !== "message") break;
        this.newest = { response: text(event.response_id), item: text(object(event.item).id) };
        break;
      case "output_audio_buffer.started":
        this.playing = true;
        this.reply = { item: this.newest.response === event.response_id ? this.newest.item : "", at: null };
        break;
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        this.playing = false;
    }
  }

  /** Return when a position of the newest reply was played, if it was played without gaps. */
  playedAt(item: string, ms: number): number | undefined {
    return item === this.reply.item && this.reply.at !== null ? this.reply.at + ms : undefined;
  }

  close(): void {
    this.playing = false;
    this.captured?.close();
    this.captured = null;
    this.element.srcObject = null;
  }

  private measure(pcm: ArrayBuffer): void {
    const level = levelOf(pcm);
    if (this.playing && this.reply.item && this.reply.at === null && level > AUDIBLE) {
      // The frame has just ended. The loudspeaker is behind by what the browser reports.
      this.reply.at = performance.now() - FRAME_MS + (this.context.outputLatency || 0) * 1000;
      this.owner.audible(this.reply.item, this.reply.at);
    }
    this.owner.voiced(level);
  }
}
