/** A conversation with the server, which continues on another connection if one is lost. */
import { type Fields, type ServerEvent, object, text } from "./events";
import { ResumeState, pauseMs } from "./resume_state";
import { RtcTransport } from "./rtc_transport";
import { SocketTransport } from "./socket_transport";
import { type Ending, type Transport, type TransportOwner, type Way, address, authorized, refusalOf } from "./transport";

export type Connection = "connecting" | "connected" | "reconnecting" | "ended";

export interface CallOwner {
  /** Handle an event of the server. */
  take(event: ServerEvent): void;
  /**
   * Show the state of the connection, and what carries it. `reason` says why the call ended, if the user did not end it,
   * or why it goes on over a WebSocket.
   */
  connection(state: Connection, way: Way, reason: string): void;
  /** Return how much of the newest reply was played or will be ("ITEM:MS"), or an empty text. */
  heard(): string;
  /** Return the microphone's track, for WebRTC. */
  track(): MediaStreamTrack;
  /** Play the agent's voice, which comes over WebRTC. */
  voice(stream: MediaStream): void;
}

/** Time after the loss of a connection after which the page stops trying, in milliseconds. */
const GIVE_UP_MS = 30_000;
/** Time limit of the first connection, in milliseconds. */
const CONNECT_MS = 10_000;
/** Time between two requests for a sign of life, in milliseconds. A browser cannot send pings of the WebSocket. */
const PING_MS = 2_000;
/** Time without any event of the server after which the connection counts as lost, in milliseconds. */
const SILENT_MS = 3_000;
/** Time between two checks. What is longer was the browser's own pause, and is not held against the server. */
const LOOK_MS = 500;

export class Call implements TransportOwner {
  readonly resume = new ResumeState();
  private transport: Transport | null = null;
  private state: Connection = "connecting";
  /** True if the page itself plays the newest reply, and so knows how much of it was heard. */
  private playsItself = false;
  private lostAt = 0;
  private attempt = 0;
  private timer = 0;
  private watch = 0;
  private silentMs = 0;
  private fallback = "";

  constructor(
    private readonly owner: CallOwner,
    private readonly session: Fields,
    private readonly key: string,
    private way: Way,
  ) {}

  /** Newest round trip of the media in milliseconds. Null if audio travels in events. */
  get roundTripMs(): number | null {
    return this.transport?.roundTripMs ?? null;
  }

  start(): void {
    this.owner.connection("connecting", this.way, "");
    this.open(false);
  }

  /** Keep 20 ms of audio and send it if there is a connection. */
  append(pcm: ArrayBuffer, at: number): void {
    if (this.state === "ended") return;
    const audio = btoa(String.fromCharCode(...new Uint8Array(pcm)));
    this.resume.sent(audio, at);
    if (this.state === "connected") this.transport?.audio(audio);
  }

  /** Send an event. While there is no connection it is dropped: positions are reported when the call continues. */
  send(event: Fields): void {
    this.transport?.send(event);
  }

  hangUp(reason = ""): void {
    if (this.state === "ended") return;
    this.detach(true);
    this.become("ended", reason);
  }

  // -- the connection (TransportOwner) ----------------------------------------------------------------------------

  receive(event: ServerEvent): void {
    this.silentMs = 0;
    this.resume.take(event);
    const code = event.type === "error" ? text(object(event.error).code) : "";
    if (event.type === "session.created" && this.state === "connecting") {
      this.send({ type: "session.update", session: this.session });
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.resumed") {
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.move") {
      this.lost();
      return;
    } else if (code === "session_expired") {
      this.hangUp("The conversation reached its longest time.");
      return;
    } else if (code === "session_resumed_elsewhere") {
      this.ended("elsewhere", "");
      return;
    }
    this.owner.take(event);
  }

  ended(how: Ending, reason: string): void {
    if (how === "elsewhere") this.hangUp("The conversation continues in another window.");
    else if (how === "no_path") this.fallBack(reason);
    else if (how === "refused" && this.state === "connecting") this.hangUp(reason);
    else this.lost();
  }

  // ---------------------------------------------------------------------------------------------------------------

  /** Connect. `again` is true to continue the conversation of the token. */
  private open(again: boolean): void {
    const query: Record<string, string> = { model: "rejoinder" };
    if (again) {
      query.resume_token = this.resume.token;
      // Over WebRTC the server plays, and knows itself what was heard.
      const heard = this.playsItself ? this.owner.heard() : "";
      if (heard) query.heard = heard;
    }
    try {
      this.transport =
        this.way === "webrtc"
          ? new RtcTransport(this, query, this.key, this.owner.track(), (stream) => this.owner.voice(stream))
          : new SocketTransport(this, query, this.key);
    } catch {
      this.hangUp("The API key has characters that a browser cannot send.");
      return;
    }
    this.timer = setTimeout(() => this.lost(), again ? this.transport.attemptMs : CONNECT_MS);
  }

  /** Go on over a WebSocket, because WebRTC is not possible. */
  private fallBack(reason: string): void {
    this.detach(false);
    this.way = "websocket";
    this.fallback = reason;
    this.open(this.state !== "connecting");
  }

  /** Send the audio that the server lacks, before any newer audio. */
  private catchUp(event: ServerEvent): void {
    if (this.way === "webrtc") this.resume.begin();
    else for (const audio of this.resume.resend(event)) this.transport?.audio(audio);
    clearTimeout(this.timer);
    this.attempt = 0;
    this.playsItself = this.way === "websocket";
    this.become("connected", this.fallback);
    if (this.resume.token) this.watchSilence();
  }

  /** Ask for signs of life, and leave the connection if none comes: its server may be gone without closing it. */
  private watchSilence(): void {
    let looked = performance.now();
    let pinged = looked;
    this.silentMs = 0;
    clearInterval(this.watch);
    this.watch = setInterval(() => {
      const now = performance.now();
      this.silentMs += Math.min(2 * LOOK_MS, now - looked);
      looked = now;
      if (this.silentMs >= SILENT_MS && now - pinged >= SILENT_MS - PING_MS) this.lost();
      else if (now - pinged >= PING_MS) {
        pinged = now;
        this.send({ type: "rejoinder.ping" });
      }
    }, LOOK_MS);
  }

  /** Leave the connection and connect again, after a random pause, if the conversation can continue. */
  private lost(): void {
    this.detach(false);
    if (this.state === "connecting") {
      this.explain();
      return;
    }
    const now = performance.now();
    if (this.state === "connected") {
      this.lostAt = now;
      this.become("reconnecting", "");
    }
    if (!this.resume.token || now - this.lostAt > GIVE_UP_MS) {
      this.become("ended", "The connection was lost, and the conversation cannot continue. Start a new one.");
      return;
    }
    this.timer = setTimeout(() => this.open(true), pauseMs(this.attempt++));
  }

  private detach(over: boolean): void {
    clearTimeout(this.timer);
    clearInterval(this.watch);
    const { transport } = this;
    this.transport = null;
    transport?.close(over);
  }

  /** End the call with the reason of the refusal, which a browser hides from pages and another request reveals. */
  private explain(): void {
    fetch(address("v1/models"), { headers: authorized(this.key) })
      .then(({ status }) => refusalOf(status))
      .catch(() => "The server cannot be reached.")
      .then((reason) => this.become("ended", reason));
  }

  private become(state: Connection, reason: string): void {
    if (this.state === "ended") return;
    this.state = state;
    this.owner.connection(state, this.way, reason);
  }
}
