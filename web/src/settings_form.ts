/** The form with the settings of the session. */
import type { Fields } from "./events";
import type { Way } from "./transport";

function field(id: string): HTMLInputElement {
  return document.getElementById(id) as HTMLInputElement;
}

/** The key that was entered. It is kept in the field only. */
export function apiKey(): string {
  return field("key").value.trim();
}

/** What is to carry the next conversation. */
export function way(): Way {
  return field("way").value === "webrtc" ? "webrtc" : "websocket";
}

/** Settings that may change during a conversation. */
export function changeable(): Fields {
  const semantic = field("detection").value === "semantic_vad";
  const silence = Math.min(5000, Math.max(100, field("silence").valueAsNumber || 500));
  const detection = semantic
    ? { type: "semantic_vad", eagerness: field("eagerness").value }
    : { type: "server_vad", silence_duration_ms: silence };
  const instructions = field("instructions").value.trim();
  return { type: "realtime", audio: { input: { turn_detection: detection } }, ...(instructions && { instructions }) };
}

/** Settings at the start of a conversation. */
export function session(): Fields {
  const format = { type: "audio/pcm", rate: 24000 };
  const voice = field("voice").value.trim();
  const settings = changeable();
  const { input } = settings.audio as { input: Fields };
  return {
    ...settings,
    output_modalities: ["audio"],
    audio: {
      input: { ...input, format, transcription: { model: "whisper-1" } },
      output: { format, ...(voice && { voice }) },
    },
  };
}

/** Call `onChange` when a setting changes that applies during a conversation. Show the fields that matter. */
export function watch(onChange: () => void): void {
  const form = document.getElementById("settings") as HTMLFormElement;
  const fit = () => {
    const semantic = field("detection").value === "semantic_vad";
    document.getElementById("eagerness-row")!.hidden = !semantic;
    document.getElementById("silence-row")!.hidden = semantic;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", ({ target }) => {
    fit();
    const id = (target as HTMLElement).id;
    if (id === "announce") announce((target as HTMLInputElement).checked);
    else if (!["key", "voice", "way"].includes(id)) onChange();
  });
  fit();
}

function announce(on: boolean): void {
  for (const id of ["turn", "transcript"]) document.getElementById(id)!.ariaLive = on ? "polite" : "off";
}
