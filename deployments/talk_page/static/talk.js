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
  /** Begin the audio of a connection with what is captured from now on. Nothing is sent again over WebRTC. */
  begin() {
    this.firstFrame = this.clearedAt = this.count;
    this.committed.clear();
    this.speechFrom = this.stopped = null;
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

// src/transport.ts
function address(path, query = {}) {
  const found = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) found.searchParams.set(name, value);
  return found;
}
function authorized(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}
function refusalOf(status) {
  if (status === 401 || status === 403) return "The server does not accept the API key. Enter it in the settings.";
  return "The server is full or not ready, or refuses this page. Try again in a few seconds.";
}

// src/rtc_transport.ts
var PATH_MS = 5e3;
var OFF = "The server has no WebRTC.";
var NO_PATH = "WebRTC found no path to the server.";
var RtcTransport = class {
  /** Connect. `track` is the microphone's, and `onVoice` gets the stream with the agent's voice. */
  constructor(owner, query, key, track, onVoice) {
    this.owner = owner;
    this.query = query;
    this.key = key;
    this.track = track;
    this.onVoice = onVoice;
    this.connect().catch((fault) => {
      if (fault instanceof DOMException) this.end("no_path", NO_PATH);
      else this.end("broken", "");
    });
  }
  owner;
  query;
  key;
  track;
  onVoice;
  way = "webrtc";
  attemptMs = PATH_MS + 1e3;
  roundTripMs = 0;
  connection = null;
  channel = null;
  /** Address of the call on the server. Empty before its answer. */
  call = "";
  timer = 0;
  over = false;
  send(event) {
    if (this.channel?.readyState === "open") this.channel.send(JSON.stringify(event));
  }
  /** Do nothing: the track carries the audio. */
  audio() {
  }
  close(over) {
    this.over = true;
    clearTimeout(this.timer);
    const opened = this.channel?.readyState === "open";
    this.channel?.close();
    this.connection?.close();
    if (this.call && (over || !opened)) this.hangUp();
  }
  async connect() {
    const headers = authorized(this.key);
    const facts = await fetch(address("v1/realtime/webrtc"), { headers });
    if (!facts.ok) return this.end("refused", refusalOf(facts.status));
    const offered = object(await facts.json());
    if (offered.available !== true) return this.end("no_path", OFF);
    if (this.over) return;
    if (!("RTCPeerConnection" in window)) return this.end("no_path", "This browser has no WebRTC.");
    const connection = this.open(offered);
    await connection.setLocalDescription(await connection.createOffer());
    const response = await fetch(address("v1/realtime/calls", this.query), {
      method: "POST",
      headers: { ...headers, "Content-Type": "application/sdp" },
      body: connection.localDescription?.sdp ?? ""
    });
    this.call = response.headers.get("Location") ?? "";
    if (this.over) return this.hangUp();
    if (response.status === 501) return this.end("no_path", OFF);
    if (!response.ok) return this.end("refused", refusalOf(response.status));
    this.timer = setTimeout(() => this.end("no_path", NO_PATH), PATH_MS);
    await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }
  open(offered) {
    const connection = this.connection = new RTCPeerConnection({
      iceServers: list(offered.ice_servers),
      iceTransportPolicy: text(offered.ice_transport_policy) === "relay" ? "relay" : "all",
      bundlePolicy: "max-bundle",
      rtcpMuxPolicy: "require",
      // All media shares one transport, so a pool of one gathers addresses while the offer is made.
      iceCandidatePoolSize: 1
    });
    const channel = this.channel = connection.createDataChannel("oai-events");
    channel.onopen = () => clearTimeout(this.timer);
    channel.onmessage = ({ data }) => {
      const event = parse(data);
      if (event && !this.over) this.owner.receive(event);
      if (event?.type === "output_audio_buffer.started") void this.measure(connection);
    };
    channel.onclose = () => this.end("broken", "");
    connection.onconnectionstatechange = () => {
      if (connection.connectionState !== "failed") return;
      if (channel.readyState === "connecting") this.end("no_path", NO_PATH);
      else this.end("broken", "");
    };
    connection.ontrack = ({ receiver, track }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      this.onVoice(new MediaStream([track]));
    };
    connection.addTrack(this.track);
    return connection;
  }
  async measure(connection) {
    const stats = (await connection.getStats()).values();
    for (const pair of stats) {
      if (pair.type === "candidate-pair" && pair.nominated) this.roundTripMs = number(pair.currentRoundTripTime) * 1e3;
    }
  }
  end(how, reason) {
    if (!this.over) this.owner.ended(how, reason);
  }
  hangUp() {
    if (!this.call) return;
    const request = { method: "POST", headers: authorized(this.key), keepalive: true };
    fetch(address(`${this.call.replace(/^\//, "")}/hangup`), request).catch(() => {
    });
  }
};

// src/socket_transport.ts
var UNSENT = 256 * 1024;
var ELSEWHERE = 4409;
var REPLACED = 4e3;
var SocketTransport = class {
  /** Connect. Raises a DOMException if the key cannot be sent. */
  constructor(owner, query, key) {
    this.owner = owner;
    const url = address("v1/realtime", query);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url, key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"]);
    this.socket.onmessage = ({ data }) => {
      const event = parse(data);
      if (event) owner.receive(event);
    };
    this.socket.onclose = ({ code }) => owner.ended(code === ELSEWHERE ? "elsewhere" : "broken", "");
  }
  owner;
  way = "websocket";
  attemptMs = 3e3;
  roundTripMs = null;
  socket;
  send(event) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }
  audio(frame) {
    this.send({ type: "input_audio_buffer.append", audio: frame });
    if (this.socket.bufferedAmount > UNSENT) this.owner.ended("broken", "");
  }
  close(over) {
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(over ? 1e3 : REPLACED);
  }
};

// src/call.ts
var GIVE_UP_MS = 3e4;
var CONNECT_MS = 1e4;
var PING_MS = 2e3;
var SILENT_MS = 3e3;
var LOOK_MS = 500;
var Call = class {
  constructor(owner, session2, key, way2) {
    this.owner = owner;
    this.session = session2;
    this.key = key;
    this.way = way2;
  }
  owner;
  session;
  key;
  way;
  resume = new ResumeState();
  transport = null;
  state = "connecting";
  /** True if the page itself plays the newest reply, and so knows how much of it was heard. */
  playsItself = false;
  lostAt = 0;
  attempt = 0;
  timer = 0;
  watch = 0;
  silentMs = 0;
  fallback = "";
  /** Newest round trip of the media in milliseconds. Null if audio travels in events. */
  get roundTripMs() {
    return this.transport?.roundTripMs ?? null;
  }
  start() {
    this.owner.connection("connecting", this.way, "");
    this.open(false);
  }
  /** Keep 20 ms of audio and send it if there is a connection. */
  append(pcm, at) {
    if (this.state === "ended") return;
    const audio = btoa(String.fromCharCode(...new Uint8Array(pcm)));
    this.resume.sent(audio, at);
    if (this.state === "connected") this.transport?.audio(audio);
  }
  /** Send an event. While there is no connection it is dropped: positions are reported when the call continues. */
  send(event) {
    this.transport?.send(event);
  }
  hangUp(reason = "") {
    if (this.state === "ended") return;
    this.detach(true);
    this.become("ended", reason);
  }
  // -- the connection (TransportOwner) ----------------------------------------------------------------------------
  receive(event) {
    this.silentMs = 0;
    this.resume.take(event);
    const code = event.type === "error" ? text(object(event.error).code) : "";
    if (event.type === "session.created" && this.state === "connecting") {
      this.send({ type: "session.update", session: this.session });
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.resumed") {
      this.catchUp(event);
    } else if (event.type === "rejoinder.session.move") {
      this.lost();
      return;
    } else if (code === "session_expired") {
      this.hangUp("The conversation reached its longest time.");
      return;
    } else if (code === "session_resumed_elsewhere") {
      this.ended("elsewhere", "");
      return;
    }
    this.owner.take(event);
  }
  ended(how, reason) {
    if (how === "elsewhere") this.hangUp("The conversation continues in another window.");
    else if (how === "no_path") this.fallBack(reason);
    else if (how === "refused" && this.state === "connecting") this.hangUp(reason);
    else this.lost();
  }
  // ---------------------------------------------------------------------------------------------------------------
  /** Connect. `again` is true to continue the conversation of the token. */
  open(again) {
    const query = { model: "rejoinder" };
    if (again) {
      query.resume_token = this.resume.token;
      const heard = this.playsItself ? this.owner.heard() : "";
      if (heard) query.heard = heard;
    }
    try {
      this.transport = this.way === "webrtc" ? new RtcTransport(this, query, this.key, this.owner.track(), (stream) => this.owner.voice(stream)) : new SocketTransport(this, query, this.key);
    } catch {
      this.hangUp("The API key has characters that a browser cannot send.");
      return;
    }
    this.timer = setTimeout(() => this.lost(), again ? this.transport.attemptMs : CONNECT_MS);
  }
  /** Go on over a WebSocket, because WebRTC is not possible. */
  fallBack(reason) {
    this.detach(false);
    this.way = "websocket";
    this.fallback = reason;
    this.open(this.state !== "connecting");
  }
  /** Send the audio that the server lacks, before any newer audio. */
  catchUp(event) {
    if (this.way === "webrtc") this.resume.begin();
    else for (const audio of this.resume.resend(event)) this.transport?.audio(audio);
    clearTimeout(this.timer);
    this.attempt = 0;
    this.playsItself = this.way === "websocket";
    this.become("connected", this.fallback);
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
    this.detach(false);
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
  detach(over) {
    clearTimeout(this.timer);
    clearInterval(this.watch);
    const { transport } = this;
    this.transport = null;
    transport?.close(over);
  }
  /** End the call with the reason of the refusal, which a browser hides from pages and another request reveals. */
  explain() {
    fetch(address("v1/models"), { headers: authorized(this.key) }).then(({ status }) => refusalOf(status)).catch(() => "The server cannot be reached.").then((reason) => this.become("ended", reason));
  }
  become(state, reason) {
    if (this.state === "ended") return;
    this.state = state;
    this.owner.connection(state, this.way, reason);
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
   * item was played. `roundTripMs` returns the round trip over WebRTC, and null over a WebSocket.
   */
  constructor(capturedAt, playedAt, roundTripMs = () => null) {
    this.capturedAt = capturedAt;
    this.playedAt = playedAt;
    this.roundTripMs = roundTripMs;
  }
  capturedAt;
  playedAt;
  roundTripMs;
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
      case "output_audio_buffer.started":
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
    const receivedAt = this.marks?.item === item ? this.marks.receivedAt : void 0;
    if (this.marks?.item === item) this.marks = null;
    const shares = Object.entries(object(extra.stages_ms)).filter(([, ms]) => number(ms) > 0).map(([stage, ms]) => ({ label: STAGES[stage] ?? stage, ms: number(ms) }));
    if (number(extra.unattributed_ms) >= 1) shares.push({ label: "Other", ms: number(extra.unattributed_ms) });
    const serverMs = number(extra.server_ms);
    const spokenAt = this.capturedAt(number(extra.speech_end_ms));
    const before = number(extra.answer_from_ms);
    const heardAt = list(response.output).map(({ id }) => before > 0 ? this.playedAt(text(id), before) : this.audibleAt.get(text(id))).find((at) => at !== void 0);
    const roundTripMs = this.roundTripMs();
    let totalMs = null;
    if (roundTripMs === null && spokenAt !== null && heardAt !== void 0) totalMs = heardAt - spokenAt;
    if (roundTripMs !== null && receivedAt !== void 0 && heardAt !== void 0) {
      totalMs = (number(extra.filler_ms) || serverMs) + roundTripMs + heardAt - receivedAt;
    }
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

// src/captured_stream.ts
var CapturedStream = class _CapturedStream {
  constructor(node, own) {
    this.node = node;
    this.own = own;
  }
  node;
  own;
  /** Pass each frame of a stream on. */
  static async open(context, stream, onFrame) {
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
    return new _CapturedStream(node, own);
  }
  close() {
    this.node.port.onmessage = null;
    this.node.disconnect();
    void this.own?.close();
  }
};
function levelOf(pcm) {
  const samples = new Int16Array(pcm);
  let energy = 0;
  for (const sample of samples) energy += (sample / 32768) ** 2;
  return Math.sqrt(energy / samples.length);
}

// src/microphone.ts
var CONSTRAINTS = {
  audio: {
    channelCount: 1,
    sampleRate: 48e3,
    // Opus's own
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true
  }
};
var Microphone = class _Microphone {
  constructor(stream, captured) {
    this.stream = stream;
    this.captured = captured;
  }
  stream;
  captured;
  /** Ask for the microphone and pass each frame on. Raises a DOMException if the user or the system refuses. */
  static async open(context, onFrame) {
    const stream = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
    return new _Microphone(stream, await CapturedStream.open(context, stream, onFrame));
  }
  get track() {
    return this.stream.getAudioTracks()[0];
  }
  /** Mute sends silence: the server needs audio without gaps. */
  set muted(muted) {
    for (const track of this.stream.getTracks()) track.enabled = !muted;
  }
  close() {
    this.captured.close();
    for (const track of this.stream.getTracks()) track.stop();
  }
};

// src/remote_voice.ts
var AUDIBLE = 3e-3;
var FRAME_MS2 = 20;
var RemoteVoice = class {
  constructor(context, owner) {
    this.context = context;
    this.owner = owner;
  }
  context;
  owner;
  /** True from the first packet of a reply to its last one. */
  playing = false;
  element = new Audio();
  captured = null;
  /** Newest message of the newest response that has one. */
  newest = { response: "", item: "" };
  /** Reply that is played or was played last, and when its first audible sample was. */
  reply = { item: "", at: null };
  /** Play the track of a connection, in place of an earlier one. */
  async attach(stream) {
    this.close();
    this.element.srcObject = stream;
    this.element.play().catch((fault) => this.element.srcObject === stream && this.owner.unheard(fault));
    const captured = await CapturedStream.open(this.context, stream, (pcm) => this.measure(pcm));
    if (this.element.srcObject === stream) this.captured = captured;
    else captured.close();
  }
  take(event) {
    switch (event.type) {
      case "response.output_item.added":
        if (object(event.item).type !== "message") break;
        this.newest = { response: text(event.response_id), item: text(object(event.item).id) };
        break;
      case "output_audio_buffer.started":
        this.playing = true;
        this.reply = { item: this.newest.response === event.response_id ? this.newest.item : "", at: null };
        break;
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        this.playing = false;
    }
  }
  /** Return when a position of the newest reply was played, if it was played without gaps. */
  playedAt(item, ms) {
    return item === this.reply.item && this.reply.at !== null ? this.reply.at + ms : void 0;
  }
  close() {
    this.playing = false;
    this.captured?.close();
    this.captured = null;
    this.element.srcObject = null;
  }
  measure(pcm) {
    const level = levelOf(pcm);
    if (this.playing && this.reply.item && this.reply.at === null && level > AUDIBLE) {
      this.reply.at = performance.now() - FRAME_MS2 + (this.context.outputLatency || 0) * 1e3;
      this.owner.audible(this.reply.item, this.reply.at);
    }
    this.owner.voiced(level);
  }
};

// src/settings_form.ts
function field(id) {
  return document.getElementById(id);
}
function apiKey() {
  return field("key").value.trim();
}
function way() {
  return field("way").value === "webrtc" ? "webrtc" : "websocket";
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
    else if (!["key", "voice", "way"].includes(id)) onChange();
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
var WAYS = { websocket: "WebSocket", webrtc: "WebRTC" };
var page = document.getElementById("call");
var talkButton = document.getElementById("talk");
var muteButton = document.getElementById("mute");
var transcript = new Transcript(document.getElementById("transcript"));
function say(id, words) {
  const place = document.getElementById(id);
  if (place.textContent !== words) place.textContent = words;
}
var Conversation = class {
  call = new Call(this, session(), apiKey(), way());
  meter = new TurnMeter(
    (ms) => this.call.resume.capturedAt(ms),
    (item, ms) => this.loudspeaker?.playedAt(item, ms) ?? this.remote.playedAt(item, ms),
    () => this.call.roundTripMs
  );
  context = new AudioContext({ sampleRate: 24e3, latencyHint: "interactive" });
  microphone = null;
  /** Plays replies that come in events. */
  loudspeaker = null;
  /** Plays replies that come over WebRTC. */
  remote = new RemoteVoice(this.context, this);
  userSpeaks = false;
  turnWaits = false;
  responses = /* @__PURE__ */ new Set();
  loudspeakerPlays = false;
  level = 0;
  over = false;
  async start() {
    try {
      await this.context.resume();
      this.loudspeaker = await Loudspeaker.open(this.context, this);
      this.microphone = await Microphone.open(this.context, (pcm) => this.capture(pcm));
    } catch (fault) {
      this.fail(refusalOf2(fault));
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
    this.remote.take(event);
    transcript.take(event);
    this.timed(this.meter.take(event, now));
    this.show();
  }
  connection(state, way2, reason) {
    page.dataset.connection = state;
    page.dataset.way = way2;
    if (state === "connected") say("connection", `${CONNECTIONS[state]} over ${WAYS[way2]}. ${reason}`.trim());
    else say("connection", CONNECTIONS[state]);
    if (state !== "connected" || way2 !== "webrtc") this.remote.close();
    if (state === "ended") this.close(reason);
    this.show();
  }
  heard() {
    return this.loudspeaker?.heard ?? "";
  }
  track() {
    return this.microphone.track;
  }
  voice(stream) {
    this.remote.attach(stream).catch((fault) => this.unheard(fault));
  }
  // -- sound ------------------------------------------------------------------------------------------------------
  audible(item, at) {
    page.dataset.heardReplies = String(Number(page.dataset.heardReplies ?? 0) + 1);
    this.timed(this.meter.audible(item, at));
  }
  stopped(item, ms) {
    this.loudspeakerPlays = false;
    this.call.send({ type: "conversation.item.truncate", item_id: item, content_index: 0, audio_end_ms: ms });
    this.show();
  }
  progress(level, playing, gaps) {
    this.loudspeakerPlays = playing;
    page.dataset.gaps = String(gaps);
    if (playing) this.level = level;
    this.show();
  }
  voiced(level) {
    if (this.remote.playing) this.level = level;
    this.show();
  }
  unheard(fault) {
    say("problem", refusalOf2(fault));
  }
  get playing() {
    return this.loudspeakerPlays || this.remote.playing;
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
    this.connection("ended", way(), reason);
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
function refusalOf2(fault) {
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
