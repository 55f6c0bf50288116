/** A conversation with the server over WebSocket, which continues on another connection if one is lost. */
import { type Fields, type ServerEvent, object, parse, text } from "./events";
import { ResumeState, pauseMs } from "./resume_state";

export type Connection = "connecting" | "connected" | "reconnecting" | "ended";

export interface CallOwner {
  /** Handle an event of the server. */
  take(event: ServerEvent): void;
  /** Show the state of the connection. `reason` says why the call ended, if the user did not end it. */
  connection(state: Connection, reason: string): void;
  /** Return how much of the newest reply was played or will be ("ITEM:MS"), or an empty text. */
  heard(): string;
}

/** Time after the loss of a connection after which the page stops trying, in milliseconds. */
const GIVE_UP_MS = 30_000;
/** Time limit of one attempt to continue, in milliseconds. The next attempt may reach another host. */
const ATTEMPT_MS = 3_000;
/** Time limit of the first connection, in milliseconds. */
const CONNECT_MS = 10_000;
/** Bytes that may wait to be sent, about 4 s of audio. With more the connection counts as lost. */
const UNSENT = 256 * 1024;
/** Time between two requests for a sign of life, in milliseconds. A browser cannot send pings of the WebSocket. */
const PING_MS = 2_000;
/** Time without any event of the server after which the connection counts as lost, in milliseconds. */
const SILENT_MS = 3_000;
/** Time between two checks. What is longer was the browser's own pause, and is not held against the server. */
const LOOK_MS = 500;
/** Close code of a connection whose conversation continues on a newer connection. */
const ELSEWHERE = 4409;
/** Own close code for a connection that is replaced. Code 1000 would end the conversation. */
const REPLACED = 4000;

export class Call {
  readonly resume = new ResumeState();
  private socket: WebSocket | null = null;
  private state: Connection = "connecting";
  private lostAt = 0;
  private attempt = 0;
  private timer = 0;
  private watch = 0;
  private silentMs = 0;

  constructor(
    private readonly owner: CallOwner,
    private readonly session: Fields,
    private readonly key: string,
  ) {}

  start(): void {
    this.owner.connection("connecting", "");
    this.open(false);
  }

  /** Keep 20 ms of audio and send it if there is a connection. */
  append(pcm: ArrayBuffer, at: number): void {
    if (this.state === "ended") return;
    const audio = btoa(String.fromCharCode(...new Uint8Array(pcm)));
    this.resume.sent(audio, at);
    if (this.state !== "connected") return;
    this.send({ type: "input_audio_buffer.append", audio });
    if ((this.socket?.bufferedAmount ?? 0) > UNSENT) this.lost();
  }

  /** Send an event. While there is no connection it is dropped: positions are reported when the call continues. */
  send(event: Fields): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  hangUp(reason = ""): void {
    if (this.state === "ended") return;
    this.detach(1000);
    this.become("ended", reason);
  }

  /** Connect. `again` is true to continue the conversation of the token. */
  private open(again: boolean): void {
    const address = new URL("v1/realtime", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.searchParams.set("model", "rejoinder");
    if (again) {
      address.searchParams.set("resume_token", this.resume.token);
      const heard = this.owner.heard();
      if (heard) address.searchParams.set("heard", heard);
    }
    const protocols = this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : ["realtime"];
    let socket: WebSocket;
    try {
      socket = new WebSocket(address, protocols);
    } catch {
      this.hangUp("The API key has characters that a browser cannot send.");
      return;
    }
    this.socket = socket;
    this.timer = setTimeout(() => this.lost(), again ? ATTEMPT_MS : CONNECT_MS);
    socket.onmessage = ({ data }) => {
      this.silentMs = 0;
      const event = parse(data);
      if (event) this.receive(event);
    };
    socket.onclose = ({ code }) => {
      if (code === ELSEWHERE) this.hangUp("The conversation continues in another window.");
      else this.lost();
    };
  }

  private receive(event: ServerEvent): void {
    this.resume.take(event);
    if (event.type === "session.created" && this.state === "connecting") {
      this.send({ type: "session.update", session: this.session });
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.resumed") {
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.move") {
      this.lost();
      return;
    } else if (event.type === "error" && text(object(event.error).code) === "session_expired") {
      this.hangUp("The conversation reached its longest time.");
      return;
    }
    this.owner.take(event);
  }

  /** Send the audio that the server lacks, before any newer audio. */
  private catchUp(event: ServerEvent): void {
    for (const audio of this.resume.resend(event)) this.send({ type: "input_audio_buffer.append", audio });
    clearTimeout(this.timer);
    this.attempt = 0;
    this.become("connected", "");
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
    this.detach(REPLACED);
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

  private detach(code: number): void {
    clearTimeout(this.timer);
    clearInterval(this.watch);
    if (!this.socket) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(code);
    this.socket = null;
  }

  /** End the call with the reason of the refusal, which a browser hides from pages and another request reveals. */
  private explain(): void {
    const headers: HeadersInit = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    fetch(new URL("v1/models", document.baseURI), { headers })
      .then(({ status }) => {
        if (status === 401 || status === 403) return "The server does not accept the API key. Enter it in the settings.";
        return "The server is full or not ready, or refuses this page. Try again in a few seconds.";
      })
      .catch(() => "The server cannot be reached.")
      .then((reason) => this.become("ended", reason));
  }

  private become(state: Connection, reason: string): void {
    if (this.state === "ended") return;
    this.state = state;
    this.owner.connection(state, reason);
  }
}
