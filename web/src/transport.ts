/** What carries the events of a call: a WebSocket (socket_transport.ts) or WebRTC (rtc_transport.ts). */
import type { Fields, ServerEvent } from "./events";

export type Way = "websocket" | "webrtc";

/**
 * How a connection ended. "broken": it was lost or never came about. "no_path": WebRTC is not possible here, so a
 * WebSocket may be. "refused": the server said why. "elsewhere": the conversation goes on over another connection.
 */
export type Ending = "broken" | "no_path" | "refused" | "elsewhere";

export interface TransportOwner {
  /** Handle an event of the server. */
  receive(event: ServerEvent): void;
  /** The connection has ended. `reason` is a sentence for the user, or empty. Called once, and not after `close`. */
  ended(how: Ending, reason: string): void;
}

export interface Transport {
  readonly way: Way;
  /** Time limit of an attempt to continue a conversation, in milliseconds. */
  readonly attemptMs: number;
  /** Newest round trip of the media in milliseconds. Null if audio travels in events. */
  readonly roundTripMs: number | null;
  /** Send an event. Nothing happens while there is no connection. */
  send(event: Fields): void;
  /** Send 20 ms of audio (base64), if audio travels in events. */
  audio(frame: string): void;
  /** Close the connection. `over` is true if the conversation has ended, false if another connection continues it. */
  close(over: boolean): void;
}

/** Return a URL of the server, with parameters. */
export function address(path: string, query: Record<string, string> = {}): URL {
  const found = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) found.searchParams.set(name, value);
  return found;
}

/** Return the headers of a request with the API key. */
export function authorized(key: string): Record<string, string> {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Return why the server refuses a request with this status, as a sentence for the user. */
export function refusalOf(status: number): string {
  if (status === 401 || status === 403) return "The server does not accept the API key. Enter it in the settings.";
  return "The server is full or not ready, or refuses this page. Try again in a few seconds.";
}
