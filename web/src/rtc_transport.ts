/** Events on a data channel of WebRTC, and audio as Opus on its tracks. The server plays replies in real time. */
import { type Fields, list, number, object, parse, text } from "./events";
import { type Ending, type Transport, type TransportOwner, address, authorized, refusalOf } from "./transport";

/** Time from the server's answer until a path must be found, in milliseconds. Then a WebSocket takes its place. */
const PATH_MS = 5_000;
const OFF = "The server has no WebRTC.";
const NO_PATH = "WebRTC found no path to the server.";

export class RtcTransport implements Transport {
  readonly way = "webrtc";
  readonly attemptMs = PATH_MS + 1_000;
  roundTripMs = 0;
  private connection: RTCPeerConnection | null = null;
  private channel: RTCDataChannel | null = null;
  /** Address of the call on the server. Empty before its answer. */
  private call = "";
  private timer = 0;
  private over = false;

  /** Connect. `track` is the microphone's, and `onVoice` gets the stream with the agent's voice. */
  constructor(
    private readonly owner: TransportOwner,
    private readonly query: Record<string, string>,
    private readonly key: string,
    private readonly track: MediaStreamTrack,
    private readonly onVoice: (stream: MediaStream) => void,
  ) {
    this.connect().catch((fault) => {
      // A fault of WebRTC itself is a DOMException. Others are those of the network.
      if (fault instanceof DOMException) this.end("no_path", NO_PATH);
      else this.end("broken", "");
    });
  }

  send(event: Fields): void {
    if (this.channel?.readyState === "open") this.channel.send(JSON.stringify(event));
  }

  /** Do nothing: the track carries the audio. */
  audio(): void {}

  close(over: boolean): void {
    this.over = true;
    clearTimeout(this.timer);
    const opened = this.channel?.readyState === "open";
    this.channel?.close();
    this.connection?.close();
    // A call that never connected holds its place on the server until it is told.
    if (this.call && (over || !opened)) this.hangUp();
  }

  private async connect(): Promise<void> {
    const headers = authorized(this.key);
    const facts = await fetch(address("v1/realtime/webrtc"), { headers });
    if (!facts.ok) return this.end("refused", refusalOf(facts.status));
    const offered = object(await facts.json());
    if (offered.available !== true) return this.end("no_path", OFF);
    if (this.over) return;
    if (!("RTCPeerConnection" in window)) return this.end("no_path", "This browser has no WebRTC.");
    const connection = this.open(offered);
    await connection.setLocalDescription(await connection.createOffer());
    const response = await fetch(address("v1/realtime/calls", this.query), {
      method: "POST",
      headers: { ...headers, "Content-Type": "application/sdp" },
      body: connection.localDescription?.sdp ?? "",
    });
    this.call = response.headers.get("Location") ?? "";
    if (this.over) return this.hangUp();
    if (response.status === 501) return this.end("no_path", OFF);
    if (!response.ok) return this.end("refused", refusalOf(response.status));
    this.timer = setTimeout(() => this.end("no_path", NO_PATH), PATH_MS);
    await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }

  private open(offered: Fields): RTCPeerConnection {
    const connection = (this.connection = new RTCPeerConnection({
      iceServers: list(offered.ice_servers) as unknown as RTCIceServer[],
      iceTransportPolicy: text(offered.ice_transport_policy) === "relay" ? "relay" : "all",
      bundlePolicy: "max-bundle",
      rtcpMuxPolicy: "require",
      // All media shares one transport, so a pool of one gathers addresses while the offer is made.
      iceCandidatePoolSize: 1,
    }));
    const channel = (this.channel = connection.createDataChannel("oai-events"));
    channel.onopen = () => clearTimeout(this.timer);
    channel.onmessage = ({ data }) => {
      const event = parse(data);
      if (event && !this.over) this.owner.receive(event);
      if (event?.type === "output_audio_buffer.started") void this.measure(connection);
    };
    channel.onclose = () => this.end("broken", "");
    connection.onconnectionstatechange = () => {
      if (connection.connectionState !== "failed") return;
      if (channel.readyState === "connecting") this.end("no_path", NO_PATH);
      else this.end("broken", "");
    };
    connection.ontrack = ({ receiver, track }) => {
      // Speech needs no delay beyond what the network's jitter demands.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      this.onVoice(new MediaStream([track]));
    };
    connection.addTrack(this.track);
    return connection;
  }

  private async measure(connection: RTCPeerConnection): Promise<void> {
    const stats: Iterable<Fields> = (await connection.getStats()).values();
    for (const pair of stats) {
      if (pair.type === "candidate-pair" && pair.nominated) this.roundTripMs = number(pair.currentRoundTripTime) * 1000;
    }
  }

  private end(how: Ending, reason: string): void {
    if (!this.over) this.owner.ended(how, reason);
  }

  private hangUp(): void {
    if (!this.call) return;
    const request = { method: "POST", headers: authorized(this.key), keepalive: true };
    fetch(address(`${this.call.replace(/^\//, "")}/hangup`), request).catch(() => {});
  }
}
