// Ask Rejoinder a spoken question with JavaScript's built-in WebSocket.
//
//     node talk.mjs question.wav [ws://127.0.0.1:8000/v1]      (Node.js 22; with 20: node --experimental-websocket)
//
// The question is a WAV file: 24 kHz, mono, 16 bits. The same code runs in a browser, with a microphone instead of a file.
// A browser sends a key as the subprotocol openai-insecure-api-key.KEY, beside the subprotocol realtime.

import { readFileSync } from "node:fs";

const FRAME_MS = 20;
const FRAME_BYTES = 24000 * 2 * FRAME_MS / 1000;

const [file, url = "ws://127.0.0.1:8000/v1"] = process.argv.slice(2);
const wav = readFileSync(file);
const question = wav.subarray(wav.indexOf("data") + 8);

const key = process.env.REJOINDER_API_KEY;
const protocols = ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])];

let socket, speaking, done;
let token = "", item = "";
let sent = 0, answerBytes = 0, failures = 0, heardAt = 0, ticks = 0;

// If the connection is lost, the conversation continues on another one: the server knows it by the token.
function connect() {
  const query = new URLSearchParams({ model: "rejoinder" });
  if (token) query.set("resume_token", token);
  if (item) query.set("heard", `${item}:${Math.round(answerBytes / 48)}`);
  socket = new WebSocket(`${url}/realtime?${query}`, protocols);
  const fresh = !token;
  socket.onopen = () => {
    if (fresh) send({ type: "session.update", session: { type: "realtime", audio: { input: { transcription: { model: "any" } } } } });
    speaking = setInterval(speak, FRAME_MS);
  };
  heardAt = performance.now();
  socket.onmessage = ({ data }) => { heardAt = performance.now(); take(JSON.parse(data)); };
  socket.onclose = lost;
}

function lost() {
  clearInterval(speaking);
  socket.onclose = socket.onmessage = null;
  socket.close();
  if (done) process.exit(0);
  if (!token || ++failures > 10) fail(`no answer from ${url}`);
  setTimeout(connect, Math.random() * 100 * failures);
}

const send = (event) => socket.send(JSON.stringify(event));

function speak() {
  // A browser cannot send pings. A server that says nothing for 3 s, although it is asked, is lost.
  if (token && ++ticks % 100 === 0) send({ type: "rejoinder.ping" });
  if (token && performance.now() - heardAt > 3000) return lost();
  // Silence follows the question until the answer is over: turns end by silence.
  const frame = Buffer.alloc(FRAME_BYTES);
  question.copy(frame, 0, Math.min(sent, question.length), Math.min(sent + FRAME_BYTES, question.length));
  sent += FRAME_BYTES;
  send({ type: "input_audio_buffer.append", audio: frame.toString("base64") });
}

function take(event) {
  if (event.type === "session.created") token = event.rejoinder?.resume_token ?? "";
  // The server has no audio of a question that it has not committed: it is sent again from the start.
  if (event.type === "rejoinder.session.resumed" && !event.audio_after_item_id) sent = 0;
  if (event.type === "conversation.item.input_audio_transcription.completed") console.log(`you:       ${event.transcript}`);
  if (event.type === "response.output_audio.delta") {
    if (event.item_id !== item) [item, answerBytes] = [event.item_id, 0];
    answerBytes += Buffer.from(event.delta, "base64").length;
  }
  if (event.type === "response.output_audio_transcript.done") console.log(`rejoinder: ${event.transcript}`);
  if (event.type === "error") fail(event.error.message);
  if (event.type === "response.done") {
    console.log(`${(answerBytes / 48000).toFixed(1)} s of audio`);
    done = true;
    socket.close();
  }
}

connect();

function fail(reason) {
  console.error(reason);
  process.exit(1);
}
