/** Events and audio over a WebSocket. */
import { type Fields, parse } from "./events";
import { type Transport, type TransportOwner, address } from "./transport";

/** Bytes that may wait to be sent, about 4 s of audio. With more the connection counts as lost. */
const UNSENT = 256 * 1024;
/** Close code of a connection whose conversation continues on a newer connection. */
const ELSEWHERE = 4409;
/** Own close code for a connection that is replaced. Code 1000 would end the conversation. */
const REPLACED = 4000;

export class SocketTransport implements Transport {
  readonly way = "websocket";
  readonly attemptMs = 3_000;
  readonly roundTripMs = null;
  private readonly socket: WebSocket;

  /** Connect. Raises a DOMException if the key cannot be sent. */
  constructor(
    private readonly owner: TransportOwner,
    query: Record<string, string>,
    key: string,
  ) {
    const url = address("v1/realtime", query);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url, key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"]);
    this.socket.onmessage = ({ data }) => {
      const event = parse(data);
      if (event) owner.receive(event);
    };
    this.socket.onclose = ({ code }) => owner.ended(code === ELSEWHERE ? "elsewhere" : "broken", "");
  }

  send(event: Fields): void {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  audio(frame: string): void {
    this.send({ type: "input_audio_buffer.append", audio: frame });
    if (this.socket.bufferedAmount > UNSENT) this.owner.ended("broken", "");
  }

  close(over: boolean): void {
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(over ? 1000 : REPLACED);
  }
}
