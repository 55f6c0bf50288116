// Driver of the realtime session of the OpenAI Agents SDK in Chromium, over WebRTC: the bundle of the package, unmodified.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openPage } from "./chromium.mjs";
import { RESULT, begin, converse, folder, speakWith, tell, turn, url } from "./conversation.mjs";

const BUNDLE = "../node_modules/@openai/agents-realtime/dist/bundle/openai-realtime-agents.umd.js";

// Runs in the page. The microphone is a stream that plays what it is given, and what the page plays is measured.
function inPage(server, result) {
  const { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession, tool } = window.OpenAIAgentsRealtime;
  const weather = tool({
    name: "get_weather",
    description: "Tell the weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
    execute: async (given) => {
      tell("tool", { name: "get_weather", arguments: given });
      return result;
    },
  });
  const agent = new RealtimeAgent({ name: "forecaster", instructions: "Answer in one short sentence.", tools: [weather] });
  const context = new AudioContext({ sampleRate: 24_000 });
  const microphone = context.createMediaStreamDestination();

  window.say = (base64) => {
    const samples = new Int16Array(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);
    const buffer = context.createBuffer(1, samples.length, 24_000);
    buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32_768), 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(microphone);
    source.start();
  };

  let cleared = false;
  function record(stream) {
    const meter = context.createScriptProcessor(512, 1, 1);
    meter.onaudioprocess = ({ inputBuffer }) => {
      const loudest = Math.max(...inputBuffer.getChannelData(0).map(Math.abs));
      if (loudest > 0.003) tell("audio", { bytes: 1024 });
      else if (cleared) tell("stopped"); // what was on its way has been played
      cleared &&= loudest > 0.003;
    };
    context.createMediaStreamSource(stream).connect(meter).connect(context.createMediaStreamDestination());
    window.meter = meter; // a node without references is collected
  }

  window.open = async (history) => {
    const audioElement = new Audio();
    const transport = new OpenAIRealtimeWebRTC({
      baseUrl: `${server}/realtime/calls`, mediaStream: microphone.stream, audioElement, useInsecureApiKey: true,
    });
    const session = new RealtimeSession(agent, { transport, model: "rejoinder" });
    session.on("error", (event) => tell("error", { text: String(event.error?.message ?? JSON.stringify(event.error)) }));
    session.on("transport_event", (event) => {
      if (event.type === "output_audio_buffer.cleared") cleared = true;
      if (event.type === "conversation.item.input_audio_transcription.completed") tell("user", { text: event.transcript });
      if (event.type === "response.output_audio_transcript.done") tell("agent", { text: event.transcript });
    });
    await session.connect({ apiKey: "none" });
    record(audioElement.srcObject);
    if (history) session.updateHistory(history);
    window.session?.close();
    window.session = session;
  };
}

const server = url.replace("ws", "http");
const run = await openPage(`${server}/models`, folder, tell);
await run(readFileSync(fileURLToPath(new URL(BUNDLE, import.meta.url)), "utf8") + ";0");
await run(`(${inPage})("${server}", "${RESULT}")`);
speakWith((pcm) => run(`say("${pcm.toString("base64")}")`));
await begin();
await run("window.open()");
await converse();
// A second session gets the history of the first. The SDK replays replies as text only.
await run(`window.open(session.history.filter((item) => item.type === "message").map((item) => item.role === "user" ? item
  : { ...item, content: [{ type: "output_text", text: item.content[0].transcript }] }))`);
await turn("memory");
await run("session.close()");
tell("end");
process.exit(0);
