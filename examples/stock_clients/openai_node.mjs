// The openai package for Node: ask question.wav (24 kHz, mono, 16 bits) and print the words of the answer.
// It connects by wss only. Let it trust the certificate that `rejoinder serve --tls self-signed` makes:
//     npm install openai@7.59.0 ws && NODE_EXTRA_CA_CERTS=ca.pem node openai_node.mjs https://127.0.0.1:8000/v1
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const question = Buffer.concat([readFileSync("question.wav").subarray(44), Buffer.alloc(48_000 * 3)]); // silence ends it
const client = new OpenAI({ apiKey: "none", baseURL: process.argv[2] });
const connection = new OpenAIRealtimeWS({ model: "rejoinder" }, client);
connection.on("error", (error) => console.error(error.message));
connection.on("response.output_audio_transcript.done", (event) => {
  console.log(event.transcript);
  connection.close();
});
connection.socket.on("open", () =>
  connection.send({ type: "input_audio_buffer.append", audio: question.toString("base64") }),
);
