// The OpenAI Agents SDK for Node: ask question.wav (24 kHz, mono, 16 bits) and print the words of the answer.
//     npm install @openai/agents-realtime@0.20.0 zod && node agents_sdk.mjs ws://127.0.0.1:8000/v1
import { readFileSync } from "node:fs";
import { RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";

const question = Buffer.concat([readFileSync("question.wav").subarray(44), Buffer.alloc(48_000 * 3)]); // silence ends it
const agent = new RealtimeAgent({ name: "assistant", instructions: "Answer in one short sentence." });
const session = new RealtimeSession(agent, { transport: "websocket" });
session.on("error", ({ error }) => console.error(error));
session.on("transport_event", (event) => {
  if (event.type !== "response.output_audio_transcript.done") return;
  console.log(event.transcript);
  session.close();
});
await session.connect({ apiKey: "none", url: `${process.argv[2]}/realtime?model=rejoinder` });
session.sendAudio(new Uint8Array(question).buffer);
