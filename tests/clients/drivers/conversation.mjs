// What the Node drivers share: the counterpart of microphone.py, which describes the arguments and the observations.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export const RESULT = "sunny, 21 degrees";
export const [, , url, folder] = process.argv;
const FRAME = 960; // bytes of 20 ms of 24 kHz PCM
const seen = [];
let left = Buffer.alloc(0);
let say = (pcm) => {
  left = pcm;
};

const now = () => Number(process.hrtime.bigint()) / 1e9;

// Print an observation. hrtime and Python's monotonic clock are the same clock on Linux.
export function tell(kind, fields = {}) {
  const line = { kind, at: now(), ...fields };
  seen.push(line);
  process.stdout.write(JSON.stringify(line) + "\n");
}

// The observations of a kind since the last question began. Those of a reply that was stopped are not among them.
export function sinceQuestion(kind) {
  const found = [];
  for (const line of seen) {
    if (line.kind === "asked" || (line.kind === "stopped" && kind !== "stopped")) found.length = 0;
    else if (line.kind === kind) found.push(line);
  }
  return found;
}

// Wait until the test lets the conversation begin.
export async function begin() {
  tell("ready");
  await once(process.stdin, "data");
}

export async function until(condition, what) {
  const deadline = now() + 20;
  while (!condition()) {
    if (now() > deadline) {
      tell("error", { text: `waited in vain for ${what}` });
      process.exit(1);
    }
    await sleep(10);
  }
}

// Send the microphone's frames in real time for ever: silence if nobody asks.
export async function listen(send) {
  for (let due = now(); ; due = Math.max(due + 0.02, now() - 0.1)) {
    await sleep(Math.max(0, (due - now()) * 1000));
    const frame = Buffer.alloc(FRAME);
    left.copy(frame, 0, 0, FRAME);
    left = left.subarray(FRAME);
    send(frame);
  }
}

// Give what is asked to a function, in place of the frames of `listen`.
export function speakWith(speak) {
  say = speak;
}

export function ask(question) {
  tell("asked", { question });
  say(readFileSync(`${folder}/${question}.pcm`));
}

const answered = () => sinceQuestion("audio").length > 0 && sinceQuestion("agent").length > 0;

function over() {
  const audio = sinceQuestion("audio");
  const seconds = audio.reduce((sum, line) => sum + line.bytes, 0) / 48_000;
  return audio.length > 0 && now() > audio[0].at + seconds + 0.5;
}

// Ask and wait until the answer has been played.
export async function turn(question) {
  ask(question);
  await until(answered, `the answer to ${question}`);
  await until(over, "the end of the answer");
}

const secondOf = (what) =>
  until(() => sinceQuestion("audio").length > 0 && now() - sinceQuestion("audio")[0].at > 1, `a second of the ${what}`);

// The common part of the conversation: a turn, a tool call, a barge-in, and "mm-hmm" over a reply.
export async function converse() {
  await turn("time");
  await turn("weather");
  ask("story");
  await secondOf("story");
  ask("stop");
  await until(() => sinceQuestion("stopped").length > 0, "the end of the story");
  await until(answered, "the answer to stop");
  await until(over, "the end of the answer");
  ask("poem");
  await secondOf("poem");
  tell("hummed");
  say(readFileSync(`${folder}/hum.pcm`));
  await until(answered, "the rest of the poem");
  await until(over, "the end of the poem");
}
