/** The transcript of both sides, and the tool calls. One line for each conversation item. */
import { type Fields, type ServerEvent, list, object, text } from "./events";

/** Lines that are kept on the page. */
const LINES = 500;

type Speaker = "user" | "assistant" | "tool";
const NAMES: Record<Speaker, string> = { user: "You", assistant: "Rejoinder", tool: "Tool" };

export class Transcript {
  private readonly lines = new Map<string, HTMLElement>();
  /** Item of speech that is being heard: its line goes if the speech is dismissed. */
  private pending = "";
  /** Newest item of the assistant. */
  private reply = "";

  constructor(private readonly box: HTMLElement) {}

  take(event: ServerEvent): void {
    const item = text(event.item_id);
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.pending = item;
        this.write(item, "user", "…", true);
        break;
      case "input_audio_buffer.committed":
        this.pending = "";
        this.write(item, "user");
        break;
      case "input_audio_buffer.cleared":
        this.dismiss();
        break;
      case "conversation.item.input_audio_transcription.delta":
        this.append(item, "user", text(event.delta), true);
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.write(item, "user", text(event.transcript) || "(no words)");
        break;
      case "conversation.item.input_audio_transcription.failed":
        this.write(item, "user", "(not understood)");
        break;
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        this.reply = item;
        this.append(item, "assistant", text(event.delta), false);
        break;
      case "response.function_call_arguments.delta":
      case "response.mcp_call_arguments.delta":
        this.append(item, "tool", text(event.delta), true);
        break;
      case "response.function_call_arguments.done":
      case "response.mcp_call_arguments.done":
        this.write(item, "tool", text(event.arguments));
        break;
      case "conversation.item.added":
      case "conversation.item.done":
      case "response.output_item.added":
      case "response.output_item.done":
        this.tool(object(event.item));
        break;
      case "response.done":
        this.ended(object(event.response));
        break;
      case "rejoinder.session.resumed":
        this.resumed(event);
    }
  }

  /** Put a remark under the line of an item, for example its latency. */
  remark(item: string, remark: string): void {
    const place = this.lines.get(item)?.querySelector(".remark");
    if (place) this.keepingEnd(() => (place.textContent = remark));
  }

  private tool(item: Fields): void {
    const id = text(item.id);
    if (item.type === "function_call" || item.type === "mcp_call") {
      this.write(id, "tool", text(item.arguments) || undefined, item.status === "in_progress", `calls ${text(item.name)}`);
      if (item.output) this.remark(id, `Result: ${text(item.output)}`);
    } else if (item.type === "function_call_output") {
      this.write(id, "tool", text(item.output), false, "answers");
    }
  }

  /** Remove the line of speech that was no turn. */
  private dismiss(): void {
    this.lines.get(this.pending)?.remove();
    this.lines.delete(this.pending);
    this.pending = "";
  }

  private ended(response: Fields): void {
    for (const item of list(response.output)) {
      const id = text(item.id);
      // The transcript runs ahead of the audio. Of an interrupted reply the server keeps what was heard.
      const heard = list(item.content).map((part) => text(part.transcript) || text(part.text)).join("");
      if (response.status === "cancelled" && item.role === "assistant" && heard) this.write(id, "assistant", heard);
      if (response.status === "cancelled") this.remark(id, "interrupted");
      if (response.status === "failed") this.remark(id, "failed");
    }
  }

  /** Show of a cut-off reply what was heard: the next item goes on after that. */
  private resumed(event: ServerEvent): void {
    this.dismiss();
    if (typeof event.heard_transcript !== "string" || !this.reply) return;
    this.write(this.reply, "assistant", event.heard_transcript);
    this.remark(this.reply, "connection lost here");
  }

  private append(item: string, who: Speaker, words: string, interim: boolean): void {
    const before = this.lines.get(item)?.querySelector(".words")?.textContent ?? "";
    this.write(item, who, (before === "…" ? "" : before) + words, interim);
  }

  /** Write the words of an item's line, which is made if there is none. */
  private write(item: string, who: Speaker, words?: string, interim = false, label?: string): void {
    if (!item) return;
    this.keepingEnd(() => {
      const line = this.lines.get(item) ?? this.add(item, who);
      if (label) line.querySelector(".who")!.textContent = `${NAMES[who]} ${label}`;
      if (words !== undefined) line.querySelector(".words")!.textContent = words;
      line.classList.toggle("interim", interim);
    });
  }

  /** Change the lines. If the end of the transcript was in view, it stays there. */
  private keepingEnd(change: () => void): void {
    const atEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    change();
    if (atEnd) this.box.scrollTop = this.box.scrollHeight;
  }

  private add(item: string, who: Speaker): HTMLElement {
    this.box.querySelector(".empty")?.remove();
    const line = document.createElement("div");
    line.className = `line ${who}`;
    for (const [tag, name] of [["span", "who"], [who === "tool" ? "pre" : "span", "words"], ["span", "remark"]] as const) {
      const part = document.createElement(tag);
      part.className = name;
      line.append(part);
    }
    line.querySelector(".who")!.textContent = NAMES[who];
    this.box.append(line);
    this.lines.set(item, line);
    for (const oldest of this.lines.keys()) {
      if (this.lines.size <= LINES) break;
      this.lines.get(oldest)?.remove();
      this.lines.delete(oldest);
    }
    return line;
  }
}
