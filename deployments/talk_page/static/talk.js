// src/events.ts
function object(value) {
  return typeof value === "object" && value !== null ? value : {};
}
function text(value) {
  return typeof value === "string" ? value : "";
}
function number(value) {
  return typeof value === "number" ? value : 0;
}
function list(value) {
  return Array.isArray(value) ? value.map(object) : [];
}
function parse(message) {
  try {
    const event = object(JSON.parse(String(message)));
    return typeof event.type === "string" ? event : null;
  } catch {
    return null;
  }
}

// src/resume_state.ts
var FRAME_MS = 20;
var KEPT = 3e3;
var LEAD_IN = 25;
var QUIET = 50;
var UTTERANCES = 8;
var ResumeState = class {
  /** Token of the session. Empty if the server does not offer to continue it. */
  token = "";
  firstFrame = 0;
  frames = [];
  count = 0;
  speechFrom = null;
  clearedAt = 0;
  stopped = null;
  committed = /* @__PURE__ */ new Map();
  /** Keep a frame (base64) that was captured at `at`, in milliseconds of performance.now(). */
  sent(audio, at) {
    this.frames.push({ audio, at });
    if (this.frames.length > KEPT) this.frames.shift();
    this.count++;
  }
  /** Return when the audio at a position of this connection's stream was captured, or null if it is too old. */
  capturedAt(streamMs) {
    const frame = this.frame(streamMs);
    return this.frames[frame - (this.count - this.frames.length)]?.at ?? null;
  }
  /** Note what a server event says about the token and the caller's speech. */
  take(event) {
    const item = text(event.item_id);
    switch (event.type) {
      case "session.created":
        this.token = text(object(event.rejoinder).resume_token) || this.token;
        break;
      case "input_audio_buffer.speech_started":
        this.speechFrom = this.frame(number(event.audio_start_ms));
        break;
      case "input_audio_buffer.speech_stopped": {
        const end = this.frame(number(event.audio_end_ms));
        this.stopped = [item, { start: this.speechFrom ?? end, end }];
        break;
      }
      case "input_audio_buffer.committed": {
        const whole = { start: this.speechFrom ?? this.count, end: this.count };
        this.committed.set(item, this.stopped?.[0] === item ? this.stopped[1] : whole);
        this.speechFrom = this.stopped = null;
        for (const oldest of this.committed.keys()) {
          if (this.committed.size <= UTTERANCES) break;
          this.committed.delete(oldest);
        }
        break;
      }
      case "input_audio_buffer.cleared":
        this.speechFrom = this.stopped = null;
        this.clearedAt = this.count;
    }
  }
  /** Return the frames to send again at the start of a connection, which begin its audio. */
  resend(event) {
    const known = this.committed.get(text(event.audio_after_item_id));
    const knownEnd = known?.end ?? 0;
    const speech = [...this.committed.values()].filter(({ end }) => end > knownEnd).map(({ start: start2 }) => start2);
    if (this.speechFrom !== null) speech.push(this.speechFrom);
    const oldest = this.count - this.frames.length;
    const wanted = Math.min(this.count - QUIET, ...speech.map((start2) => start2 - LEAD_IN));
    const start = Math.max(wanted, knownEnd, this.clearedAt, oldest);
    this.firstFrame = start;
    for (const [item, kept] of this.committed) if (kept !== known) this.committed.delete(item);
    return this.frames.slice(start - oldest).map(({ audio }) => audio);
  }
  /** Return the number of the frame at a position of this connection's stream, at most the number of frames sent. */
  frame(streamMs) {
    return Math.min(this.count, Math.round(streamMs / FRAME_MS) + this.firstFrame);
  }
};
function pauseMs(attempt) {
  return Math.random() * Math.min(2e3, 50 * 2 ** attempt);
}

// src/call.ts
var GIVE_UP_MS = 3e4;
var ATTEMPT_MS = 3e3;
var CONNECT_MS = 1e4;
var UNSENT = 256 * 1024;
var PING_MS = 2e3;
var SILENT_MS = 3e3;
var LOOK_MS = 500;
var ELSEWHERE = 4409;
var REPLACED = 4e3;
var Call = class {
  constructor(owner, session2, key) {
    this.owner = owner;
    this.session = session2;
    this.key = key;
  }
  owner;
  session;
  key;
  resume = new ResumeState();
  socket = null;
  state = "connecting";
  lostAt = 0;
  attempt = 0;
  timer = 0;
  watch = 0;
  silentMs = 0;
  start() {
    this.owner.connection("connecting", "");
    this.open(false);
  }
  /** Keep 20 ms of audio and send it if there is a connection. */
  append(pcm, at) {
    if (this.state === "ended") return;
    const audio = btoa(String.fromCharCode(...new Uint8Array(pcm)));
    this.resume.sent(audio, at);
    if (this.state !== "connected") return;
    this.send({ type: "input_audio_buffer.append", audio });
    if ((this.socket?.bufferedAmount ?? 0) > UNSENT) this.lost();
  }
  /** Send an event. While there is no connection it is dropped: positions are reported when the call continues. */
  send(event) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }
  hangUp(reason = "") {
    if (this.state === "ended") return;
    this.detach(1e3);
    this.become("ended", reason);
  }
  /** Connect. `again` is true to continue the conversation of the token. */
  open(again) {
    const address = new URL("v1/realtime", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.searchParams.set("model", "rejoinder");
    if (again) {
      address.searchParams.set("resume_token", this.resume.token);
      const heard = this.owner.heard();
      if (heard) address.searchParams.set("heard", heard);
    }
    const protocols = this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : ["realtime"];
    let socket;
    try {
      socket = new WebSocket(address, protocols);
    } catch {
      this.hangUp("The API key has characters that a browser cannot send.");
      return;
    }
    this.socket = socket;
    this.timer = setTimeout(() => this.lost(), again ? ATTEMPT_MS : CONNECT_MS);
    socket.onmessage = ({ data }) => {
      this.silentMs = 0;
      const event = parse(data);
      if (event) this.receive(event);
    };
    socket.onclose = ({ code }) => {
      if (code === ELSEWHERE) this.hangUp("The conversation continues in another window.");
      else this.lost();
    };
  }
  receive(event) {
    this.resume.take(event);
    if (event.type === "session.created" && this.state === "connecting") {
      this.send({ type: "session.update", session: this.session });
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.resumed") {
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.move") {
      this.lost();
      return;
    } else if (event.type === "error" && text(object(event.error).code) === "session_expired") {
      this.hangUp("The conversation reached its longest time.");
      return;
    }
    this.owner.take(event);
  }
  /** Send the audio that the server lacks, before any newer audio. */
  catchUp(event) {
    for (const audio of this.resume.resend(event)) this.send({ type: "input_audio_buffer.append", audio });
    clearTimeout(this.timer);
    this.attempt = 0;
    this.become("connected", "");
    if (this.resume.token) this.watchSilence();
  }
  /** Ask for signs of life, and leave the connection if none comes: its server may be gone without closing it. */
  watchSilence() {
    let looked = performance.now();
    let pinged = looked;
    this.silentMs = 0;
    clearInterval(this.watch);
    this.watch = setInterval(() => {
      const now = performance.now();
      this.silentMs += Math.min(2 * LOOK_MS, now - looked);
      looked = now;
      if (this.silentMs >= SILENT_MS && now - pinged >= SILENT_MS - PING_MS) this.lost();
      else if (now - pinged >= PING_MS) {
        pinged = now;
        this.send({ type: "rejoinder.ping" });
      }
    }, LOOK_MS);
  }
  /** Leave the connection and connect again, after a random pause, if the conversation can continue. */
  lost() {
    this.detach(REPLACED);
    if (this.state === "connecting") {
      this.explain();
      return;
    }
    const now = performance.now();
    if (this.state === "connected") {
      this.lostAt = now;
      this.become("reconnecting", "");
    }
    if (!this.resume.token || now - this.lostAt > GIVE_UP_MS) {
      this.become("ended", "The connection was lost, and the conversation cannot continue. Start a new one.");
      return;
    }
    this.timer = setTimeout(() => this.open(true), pauseMs(this.attempt++));
  }
  detach(code) {
    clearTimeout(this.timer);
    clearInterval(this.watch);
    if (!this.socket) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(code);
    this.socket = null;
  }
  /** End the call with the reason of the refusal, which a browser hides from pages and another request reveals. */
  explain() {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    fetch(new URL("v1/models", document.baseURI), { headers }).then(({ status }) => {
      if (status === 401 || status === 403) return "The server does not accept the API key. Enter it in the settings.";
      return "The server is full or not ready, or refuses this page. Try again in a few seconds.";
    }).catch(() => "The server cannot be reached.").then((reason) => this.become("ended", reason));
  }
  become(state, reason) {
    if (this.state === "ended") return;
    this.state = state;
    this.owner.connection(state, reason);
  }
};

// src/turn_times.ts
var STAGES = {
  silence: "Silence heard",
  endpoint: "End of turn",
  stt: "Speech to text",
  llm_first_token: "Language model",
  first_segment: "First phrase",
  tts_first_audio: "Voice",
  delivery: "Delivery"
};
var TurnMeter = class {
  /**
   * `capturedAt` returns when audio at a position of the sent stream was captured, and `playedAt` when a position of an
   * item was played.
   */
  constructor(capturedAt, playedAt) {
    this.capturedAt = capturedAt;
    this.playedAt = playedAt;
  }
  capturedAt;
  playedAt;
  /** Voice-to-voice latencies of the session. */
  totals = [];
  serverTotals = [];
  marks = null;
  audibleAt = /* @__PURE__ */ new Map();
  /** Note an event that arrived at `now`. Return the turn if its times have changed. */
  take(event, now) {
    switch (event.type) {
      case "input_audio_buffer.speech_stopped": {
        const spokenAt = this.capturedAt(number(event.audio_end_ms)) ?? now;
        this.marks = { item: text(event.item_id), spokenAt, endedAt: now };
        return this.live();
      }
      case "input_audio_buffer.cleared":
        this.marks = null;
        return null;
      case "response.created":
        if (this.marks && !this.marks.repliedAt) this.marks.repliedAt = now;
        return this.live();
      case "response.output_audio.delta":
        if (!this.marks || this.marks.receivedAt) return null;
        this.marks.receivedAt = now;
        return this.live();
      case "response.done":
        return this.finish(object(event.response), object(event.rejoinder ?? object(event.response).rejoinder));
      default:
        return null;
    }
  }
  /** Note when the first audible sample of a reply left the loudspeaker. */
  audible(item, at) {
    this.audibleAt.set(item, at);
    const [oldest] = this.audibleAt.keys();
    if (this.audibleAt.size > 16 && oldest) this.audibleAt.delete(oldest);
    if (!this.marks?.receivedAt || this.marks.audibleAt) return null;
    this.marks.audibleAt = at;
    return this.live();
  }
  /** The turn as far as it is known on this side, before the server's own times arrive. */
  live() {
    if (!this.marks) return null;
    const { item, spokenAt, endedAt, repliedAt, receivedAt, audibleAt } = this.marks;
    const shares = [];
    let from = spokenAt;
    for (const [label, at] of [
      ["Until the turn ended", endedAt],
      ["Until the reply began", repliedAt],
      ["Until its audio arrived", receivedAt],
      ["Until it was audible", audibleAt]
    ]) {
      if (at === void 0) break;
      shares.push({ label, ms: Math.max(0, at - from) });
      from = Math.max(from, at);
    }
    return { item, shares, totalMs: null, serverMs: null, notes: [] };
  }
  /** The turn with the server's stages. Null if the response answers no turn or nothing of it was audible. */
  finish(response, extra) {
    const item = text(extra.item_id);
    if (!item) return null;
    if (this.marks?.item === item) this.marks = null;
    const shares = Object.entries(object(extra.stages_ms)).filter(([, ms]) => number(ms) > 0).map(([stage, ms]) => ({ label: STAGES[stage] ?? stage, ms: number(ms) }));
    if (number(extra.unattributed_ms) >= 1) shares.push({ label: "Other", ms: number(extra.unattributed_ms) });
    const serverMs = number(extra.server_ms);
    const spokenAt = this.capturedAt(number(extra.speech_end_ms));
    const before = number(extra.answer_from_ms);
    const heardAt = list(response.output).map(({ id }) => before > 0 ? this.playedAt(text(id), before) : this.audibleAt.get(text(id))).find((at) => at !== void 0);
    const totalMs = spokenAt !== null && heardAt !== void 0 ? heardAt - spokenAt : null;
    if (totalMs !== null && totalMs > 0) {
      this.totals.push(totalMs);
      this.serverTotals.push(serverMs);
      shares.push({ label: "Network and player", ms: Math.max(0, totalMs - serverMs) });
    }
    const notes = [];
    if (extra.interrupted) notes.push("interrupted");
    if (extra.drafted) notes.push("began before the end of the turn");
    if (extra.hedged) notes.push("second request to the language model");
    if (text(extra.cache).startsWith("hit")) notes.push("from the answer cache");
    if (extra.filler_ms) notes.push(`a filler after ${Math.round(number(extra.filler_ms))} ms`);
    return { item, shares, totalMs, serverMs, notes };
  }
};
function percentile(values, percent) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(percent / 100 * sorted.length) - 1)] ?? NaN;
}

// src/latency_view.ts
function element(id) {
  return document.getElementById(id);
}
function drawTurn(turn) {
  const sum = turn.shares.reduce((total2, { ms }) => total2 + ms, 0);
  const rows = [];
  let from = 0;
  for (const { label, ms } of turn.shares) {
    rows.push(row(label, ms, from / sum, ms / sum));
    from += ms;
  }
  const heard = turn.totalMs !== null;
  const total = row(heard ? "Voice to voice" : turn.serverMs === null ? "So far" : "On the server", turn.totalMs ?? sum);
  total.className = "total";
  element("waterfall").replaceChildren(...rows, total);
  element("waterfall-note").textContent = turn.notes.join(", ");
}
function row(label, ms, from, share) {
  const line = document.createElement("li");
  const [name, value] = [document.createElement("span"), document.createElement("span")];
  name.textContent = label;
  value.textContent = `${Math.round(ms)} ms`;
  value.className = "ms";
  line.append(name, value);
  if (from === void 0 || share === void 0) return line;
  const [track, bar] = [document.createElement("span"), document.createElement("span")];
  track.className = "track";
  bar.className = "bar";
  track.ariaHidden = "true";
  bar.style.width = `${(share * 100).toFixed(2)}%`;
  bar.style.marginLeft = `${(from * 100).toFixed(2)}%`;
  track.append(bar);
  line.append(track);
  return line;
}
function drawPercentiles({ totals, serverTotals }) {
  element("turns").textContent = String(totals.length);
  if (!totals.length) return;
  for (const percent of [50, 90, 99]) element(`p${percent}`).textContent = `${Math.round(percentile(totals, percent))} ms`;
  element("server-median").textContent = `The median on the server, to the first audio that it sends, is ${Math.round(percentile(serverTotals, 50))} ms.`;
}

// src/loudspeaker.ts
var SAMPLES_PER_MS = 24;
var COURSE = 2e3;
var Loudspeaker = class _Loudspeaker {
  constructor(context, node, owner) {
    this.context = context;
    this.node = node;
    this.owner = owner;
    node.port.onmessage = ({ data }) => this.take(data);
  }
  context;
  node;
  owner;
  item = "";
  /** Milliseconds of the item that were played or are queued. */
  receivedMs = 0;
  /** Milliseconds of the item that arrived after the newest stop. */
  sinceStopMs = 0;
  /** When which part of an item had been played: milliseconds of the item, and of performance.now(). */
  course = [];
  static async open(context, owner) {
    await context.audioWorklet.addModule("player_worklet.js");
    const node = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    node.connect(context.destination);
    return new _Loudspeaker(context, node, owner);
  }
  /** Queue audio: base64 of 24 kHz PCM16. */
  play(item, base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const samples = new Float32Array(bytes.length >> 1);
    for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(i * 2, true) / 32768;
    if (item !== this.item) this.receivedMs = this.sinceStopMs = 0;
    this.item = item;
    this.receivedMs += samples.length / SAMPLES_PER_MS;
    this.sinceStopMs += samples.length / SAMPLES_PER_MS;
    this.post({ kind: "audio", item, samples });
  }
  /** Say that the reply has no more audio. */
  end() {
    this.post({ kind: "end" });
  }
  /** Stop at once. `stopped` is called with the position if something was playing. */
  stop() {
    this.sinceStopMs = 0;
    this.post({ kind: "flush" });
  }
  /** How much of the newest reply was played or will be, as "ITEM:MS". Empty before the first reply. */
  get heard() {
    return this.item && `${this.item}:${Math.round(this.receivedMs)}`;
  }
  take(report) {
    if (report.kind === "audible") this.owner.audible(report.item, this.leavesAt(report.at));
    if (report.kind === "progress") this.follow(report.item, report.played / SAMPLES_PER_MS, this.leavesAt(report.at));
    if (report.kind === "progress") this.owner.progress(report.level, report.playing, report.gaps);
    if (report.kind !== "flushed" || !report.item) return;
    const ms = Math.round(report.played / SAMPLES_PER_MS);
    if (report.item === this.item) this.receivedMs = ms + this.sinceStopMs;
    this.owner.stopped(report.item, ms);
  }
  /** Return when a position of an item was played, in milliseconds of performance.now(). Undefined if it was not. */
  playedAt(item, ms) {
    const after = this.course.find((point) => point.item === item && point.ms > ms);
    return after && after.at - (after.ms - ms);
  }
  follow(item, ms, at) {
    if (!item || ms === this.course.at(-1)?.ms) return;
    this.course.push({ item, ms, at });
    if (this.course.length > COURSE) this.course.shift();
  }
  /** Return when a sample of the context leaves the loudspeaker, in milliseconds of performance.now(). */
  leavesAt(contextS) {
    const { contextTime, performanceTime } = this.context.getOutputTimestamp();
    if (contextTime && performanceTime) return performanceTime + (contextS - contextTime) * 1e3;
    return performance.now() + (this.context.outputLatency || 0) * 1e3;
  }
  post(command) {
    this.node.port.postMessage(command);
  }
};

// src/microphone.ts
var CONSTRAINTS = {
  audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true }
};
var Microphone = class _Microphone {
  constructor(stream, node, own) {
    this.stream = stream;
    this.node = node;
    this.own = own;
  }
  stream;
  node;
  own;
  /** Ask for the microphone and pass each frame on. Raises a DOMException if the user or the system refuses. */
  static async open(context, onFrame) {
    const stream = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
    let source;
    let own = null;
    try {
      source = context.createMediaStreamSource(stream);
    } catch {
      own = new AudioContext();
      source = own.createMediaStreamSource(stream);
    }
    const used = own ?? context;
    await used.audioWorklet.addModule("capture_worklet.js");
    const node = new AudioWorkletNode(used, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => onFrame(data);
    source.connect(node);
    return new _Microphone(stream, node, own);
  }
  /** Mute sends silence: the server needs audio without gaps. */
  set muted(muted) {
    for (const track of this.stream.getTracks()) track.enabled = !muted;
  }
  close() {
    this.node.port.onmessage = null;
    for (const track of this.stream.getTracks()) track.stop();
    void this.own?.close();
  }
};
function levelOf(pcm) {
  const samples = new Int16Array(pcm);
  let energy = 0;
  for (const sample of samples) energy += (sample / 32768) ** 2;
  return Math.sqrt(energy / samples.length);
}

// src/settings_form.ts
function field(id) {
  return document.getElementById(id);
}
function apiKey() {
  return field("key").value.trim();
}
function changeable() {
  const semantic = field("detection").value === "semantic_vad";
  const silence = Math.min(5e3, Math.max(100, field("silence").valueAsNumber || 500));
  const detection = semantic ? { type: "semantic_vad", eagerness: field("eagerness").value } : { type: "server_vad", silence_duration_ms: silence };
  const instructions = field("instructions").value.trim();
  return { type: "realtime", audio: { input: { turn_detection: detection } }, ...instructions && { instructions } };
}
function session() {
  const format = { type: "audio/pcm", rate: 24e3 };
  const voice = field("voice").value.trim();
  const settings = changeable();
  const { input } = settings.audio;
  return {
    ...settings,
    output_modalities: ["audio"],
    audio: {
      input: { ...input, format, transcription: { model: "whisper-1" } },
      output: { format, ...voice && { voice } }
    }
  };
}
function watch(onChange) {
  const form = document.getElementById("settings");
  const fit = () => {
    const semantic = field("detection").value === "semantic_vad";
    document.getElementById("eagerness-row").hidden = !semantic;
    document.getElementById("silence-row").hidden = semantic;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", ({ target }) => {
    fit();
    const id = target.id;
    if (id === "announce") announce(target.checked);
    else if (id !== "key" && id !== "voice") onChange();
  });
  fit();
}
function announce(on) {
  for (const id of ["turn", "transcript"]) document.getElementById(id).ariaLive = on ? "polite" : "off";
}

// src/transcript.ts
var LINES = 500;
var NAMES = { user: "You", assistant: "Rejoinder", tool: "Tool" };
var Transcript = class {
  constructor(box) {
    this.box = box;
  }
  box;
  lines = /* @__PURE__ */ new Map();
  /** Item of speech that is being heard: its line goes if the speech is dismissed. */
  pending = "";
  /** Newest item of the assistant. */
  reply = "";
  take(event) {
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
  remark(item, remark) {
    const place = this.lines.get(item)?.querySelector(".remark");
    if (place) this.keepingEnd(() => place.textContent = remark);
  }
  tool(item) {
    const id = text(item.id);
    if (item.type === "function_call" || item.type === "mcp_call") {
      this.write(id, "tool", text(item.arguments) || void 0, item.status === "in_progress", `calls ${text(item.name)}`);
      if (item.output) this.remark(id, `Result: ${text(item.output)}`);
    } else if (item.type === "function_call_output") {
      this.write(id, "tool", text(item.output), false, "answers");
    }
  }
  /** Remove the line of speech that was no turn. */
  dismiss() {
    this.lines.get(this.pending)?.remove();
    this.lines.delete(this.pending);
    this.pending = "";
  }
  ended(response) {
    for (const item of list(response.output)) {
      const id = text(item.id);
      const heard = list(item.content).map((part) => text(part.transcript) || text(part.text)).join("");
      if (response.status === "cancelled" && item.role === "assistant" && heard) this.write(id, "assistant", heard);
      if (response.status === "cancelled") this.remark(id, "interrupted");
      if (response.status === "failed") this.remark(id, "failed");
    }
  }
  /** Show of a cut-off reply what was heard: the next item goes on after that. */
  resumed(event) {
    this.dismiss();
    if (typeof event.heard_transcript !== "string" || !this.reply) return;
    this.write(this.reply, "assistant", event.heard_transcript);
    this.remark(this.reply, "connection lost here");
  }
  append(item, who, words, interim) {
    const before = this.lines.get(item)?.querySelector(".words")?.textContent ?? "";
    this.write(item, who, (before === "…" ? "" : before) + words, interim);
  }
  /** Write the words of an item's line, which is made if there is none. */
  write(item, who, words, interim = false, label) {
    if (!item) return;
    this.keepingEnd(() => {
      const line = this.lines.get(item) ?? this.add(item, who);
      if (label) line.querySelector(".who").textContent = `${NAMES[who]} ${label}`;
      if (words !== void 0) line.querySelector(".words").textContent = words;
      line.classList.toggle("interim", interim);
    });
  }
  /** Change the lines. If the end of the transcript was in view, it stays there. */
  keepingEnd(change) {
    const atEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    change();
    if (atEnd) this.box.scrollTop = this.box.scrollHeight;
  }
  add(item, who) {
    this.box.querySelector(".empty")?.remove();
    const line = document.createElement("div");
    line.className = `line ${who}`;
    for (const [tag, name] of [["span", "who"], [who === "tool" ? "pre" : "span", "words"], ["span", "remark"]]) {
      const part = document.createElement(tag);
      part.className = name;
      line.append(part);
    }
    line.querySelector(".who").textContent = NAMES[who];
    this.box.append(line);
    this.lines.set(item, line);
    for (const oldest of this.lines.keys()) {
      if (this.lines.size <= LINES) break;
      this.lines.get(oldest)?.remove();
      this.lines.delete(oldest);
    }
    return line;
  }
};

// src/talk.ts
var TURNS = {
  idle: "Ready",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  speaking: "Speaking"
};
var CONNECTIONS = {
  connecting: "Connecting",
  connected: "Connected",
  reconnecting: "Connection lost, connecting again",
  ended: "Not connected"
};
var page = document.getElementById("call");
var talkButton = document.getElementById("talk");
var muteButton = document.getElementById("mute");
var transcript = new Transcript(document.getElementById("transcript"));
function say(id, words) {
  const place = document.getElementById(id);
  if (place.textContent !== words) place.textContent = words;
}
var Conversation = class {
  call = new Call(this, session(), apiKey());
  meter = new TurnMeter(
    (ms) => this.call.resume.capturedAt(ms),
    (item, ms) => this.loudspeaker?.playedAt(item, ms)
  );
  context = new AudioContext({ sampleRate: 24e3, latencyHint: "interactive" });
  microphone = null;
  loudspeaker = null;
  userSpeaks = false;
  turnWaits = false;
  responses = /* @__PURE__ */ new Set();
  playing = false;
  level = 0;
  over = false;
  async start() {
    try {
      await this.context.resume();
      this.loudspeaker = await Loudspeaker.open(this.context, this);
      this.microphone = await Microphone.open(this.context, (pcm) => this.capture(pcm));
    } catch (fault) {
      this.fail(refusalOf(fault));
      return;
    }
    if (this.over) this.microphone.close();
    else this.call.start();
  }
  end(reason = "") {
    this.call.hangUp(reason);
  }
  mute(muted) {
    if (this.microphone) this.microphone.muted = muted;
  }
  change() {
    this.call.send({ type: "session.update", session: changeable() });
  }
  // -- the call ---------------------------------------------------------------------------------------------------
  take(event) {
    const now = performance.now();
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.userSpeaks = true;
        this.loudspeaker?.stop();
        break;
      case "input_audio_buffer.speech_stopped":
        this.userSpeaks = false;
        this.turnWaits = true;
        break;
      case "input_audio_buffer.cleared":
        this.userSpeaks = this.turnWaits = false;
        break;
      case "response.created":
        this.turnWaits = false;
        this.responses.add(text(object(event.response).id));
        break;
      case "response.output_audio.delta":
        this.loudspeaker?.play(text(event.item_id), text(event.delta));
        break;
      case "response.output_audio.done":
        this.loudspeaker?.end();
        break;
      case "response.done":
        this.responses.delete(text(object(event.response).id));
        this.turnWaits = false;
        this.explain(object(event.response));
        break;
      case "rejoinder.session.resumed":
        this.userSpeaks = this.turnWaits = false;
        this.responses.clear();
        page.dataset.resumed = String(Number(page.dataset.resumed ?? 0) + 1);
        break;
      case "error":
        say("problem", text(object(event.error).message));
    }
    transcript.take(event);
    this.timed(this.meter.take(event, now));
    this.show();
  }
  connection(state, reason) {
    page.dataset.connection = state;
    say("connection", CONNECTIONS[state]);
    if (state === "ended") this.close(reason);
    this.show();
  }
  heard() {
    return this.loudspeaker?.heard ?? "";
  }
  // -- sound ------------------------------------------------------------------------------------------------------
  audible(item, at) {
    page.dataset.heardReplies = String(Number(page.dataset.heardReplies ?? 0) + 1);
    this.timed(this.meter.audible(item, at));
  }
  stopped(item, ms) {
    this.playing = false;
    this.call.send({ type: "conversation.item.truncate", item_id: item, content_index: 0, audio_end_ms: ms });
    this.show();
  }
  progress(level, playing, gaps) {
    this.playing = playing;
    page.dataset.gaps = String(gaps);
    if (playing) this.level = level;
    this.show();
  }
  capture(pcm) {
    if (!this.playing) this.level = levelOf(pcm);
    this.call.append(pcm, performance.now());
  }
  // -- what is shown ----------------------------------------------------------------------------------------------
  timed(turn) {
    if (!turn) return;
    drawTurn(turn);
    drawPercentiles(this.meter);
    if (turn.totalMs !== null) transcript.remark(turn.item, `answered in ${Math.round(turn.totalMs)} ms`);
  }
  /** Show why a response failed. */
  explain(response) {
    const error = object(object(response.status_details).error);
    say("problem", response.status === "failed" ? text(error.message) || `No answer: ${text(error.code)}.` : "");
  }
  get turn() {
    if (this.over || page.dataset.connection === "connecting") return "idle";
    if (this.userSpeaks) return "hearing";
    if (this.playing) return "speaking";
    return this.turnWaits || this.responses.size ? "thinking" : "listening";
  }
  show() {
    page.dataset.turn = this.turn;
    say("turn-text", TURNS[this.turn]);
    page.style.setProperty("--level", Math.min(1, this.level * 6).toFixed(2));
  }
  fail(reason) {
    this.connection("ended", reason);
  }
  close(reason) {
    this.over = true;
    this.microphone?.close();
    this.loudspeaker?.stop();
    void this.context.close();
    this.level = 0;
    say("problem", reason);
    ended();
  }
};
function refusalOf(fault) {
  const name = fault instanceof DOMException ? fault.name : "";
  if (name === "NotAllowedError") return "The microphone is not allowed. Allow it in the browser's settings of this page.";
  if (name === "NotFoundError") return "There is no microphone. Connect one and try again.";
  return `The microphone or the loudspeaker cannot be used: ${String(fault)}`;
}
var current = null;
function ended() {
  current = null;
  talkButton.textContent = "Start talking";
  talkButton.classList.add("primary");
  muteButton.disabled = true;
  setMuted(false);
}
function setMuted(muted) {
  muteButton.setAttribute("aria-pressed", String(muted));
  current?.mute(muted);
}
talkButton.addEventListener("click", () => {
  if (current) {
    current.end();
    return;
  }
  say("problem", "");
  if (!window.isSecureContext || !navigator.mediaDevices) {
    say("problem", "A browser gives the microphone only to pages over https, or from localhost.");
    return;
  }
  talkButton.textContent = "Hang up";
  talkButton.classList.remove("primary");
  muteButton.disabled = false;
  current = new Conversation();
  void current.start();
});
muteButton.addEventListener("click", () => setMuted(muteButton.getAttribute("aria-pressed") !== "true"));
watch(() => current?.change());
window.addEventListener("pagehide", () => current?.end());
