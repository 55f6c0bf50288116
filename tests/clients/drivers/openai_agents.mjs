// Driver of the realtime session of the OpenAI Agents SDK for Node, over WebSocket.
import { RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";
import { RESULT, begin, converse, listen, tell, turn, url } from "./conversation.mjs";

const weather = tool({
  name: "get_weather",
  description: "Tell the weather in a city.",
  parameters: z.object({ city: z.string() }),
  execute: async (given) => {
    tell("tool", { name: "get_weather", arguments: given });
    return RESULT;
  },
});
const agent = new RealtimeAgent({ name: "forecaster", instructions: "Answer in one short sentence.", tools: [weather] });

function open() {
  const session = new RealtimeSession(agent, { transport: "websocket", model: "rejoinder" });
  session.on("audio", (event) => tell("audio", { bytes: event.data.byteLength }));
  session.on("audio_interrupted", () => tell("stopped"));
  session.on("error", (event) => tell("error", { text: String(event.error?.message ?? JSON.stringify(event.error)) }));
  session.on("transport_event", (event) => {
    if (event.type === "conversation.item.input_audio_transcription.completed") tell("user", { text: event.transcript });
    if (event.type === "response.output_audio_transcript.done") tell("agent", { text: event.transcript });
  });
  return session;
}

await begin();
const first = open();
let current = first;
await first.connect({ apiKey: "none", url: `${url}/realtime?model=rejoinder` });
listen((frame) => current.sendAudio(frame.buffer.slice(frame.byteOffset, frame.byteOffset + frame.byteLength)));
await converse();
// A second session gets the history of the first. The SDK replays replies as text only.
const history = first.history
  .filter((item) => item.type === "message")
  .map((item) =>
    item.role === "user" ? item : { ...item, content: [{ type: "output_text", text: item.content[0].transcript }] },
  );
const second = open();
await second.connect({ apiKey: "none", url: `${url}/realtime?model=rejoinder` });
second.updateHistory(history);
current = second;
first.close();
await turn("memory");
tell("end");
process.exit(0);
