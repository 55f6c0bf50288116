// Driver of the Realtime class of the openai package for Node. It always uses wss.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { RESULT, begin, converse, listen, tell, url } from "./conversation.mjs";

const client = new OpenAI({ apiKey: "none", baseURL: url.replace("wss:", "https:") });
const tools = [
  {
    type: "function",
    name: "get_weather",
    description: "Tell the weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
];

// Connect, and do what a program must that uses the bare events: play, truncate and run tools.
async function open() {
  const connection = new OpenAIRealtimeWS({ model: "rejoinder" }, client);
  let item = null;
  let calls = 0;
  connection.on("error", (error) => tell("error", { text: error.message }));
  connection.on("conversation.item.input_audio_transcription.completed", (event) => tell("user", { text: event.transcript }));
  connection.on("response.output_audio.delta", (event) => {
    const { length } = Buffer.from(event.delta, "base64");
    if (item?.id !== event.item_id) item = { id: event.item_id, at: performance.now(), ms: 0 };
    item.ms += length / 48;
    tell("audio", { bytes: length });
  });
  connection.on("response.output_audio_transcript.done", (event) => tell("agent", { text: event.transcript }));
  connection.on("input_audio_buffer.speech_started", () => {
    const played = item ? Math.floor(performance.now() - item.at) : 0;
    if (!item || played >= item.ms) return; // nothing is being played
    tell("stopped");
    connection.send({ type: "conversation.item.truncate", item_id: item.id, content_index: 0, audio_end_ms: played });
    item = null;
  });
  connection.on("response.output_item.done", ({ item: call }) => {
    if (call.type !== "function_call") return;
    calls += 1;
    tell("tool", { name: call.name, arguments: JSON.parse(call.arguments) });
    const output = { type: "function_call_output", call_id: call.call_id, output: RESULT };
    connection.send({ type: "conversation.item.create", item: output });
  });
  connection.on("response.done", () => {
    if (calls) connection.send({ type: "response.create" });
    calls = 0;
  });
  await new Promise((opened) => connection.socket.on("open", opened));
  connection.send({ type: "session.update", session: { type: "realtime", instructions: "Answer briefly.", tools,
    audio: { input: { transcription: { model: "whisper-1" } } } } });
  return connection;
}

await begin();
const current = await open();
listen((frame) => current.send({ type: "input_audio_buffer.append", audio: frame.toString("base64") }));
await converse();
tell("end");
process.exit(0);
