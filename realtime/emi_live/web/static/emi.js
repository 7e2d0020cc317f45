// Connect a web page to `emi serve`: send a MediaStream, get estimates and words.
//
//   import { EmiSession } from "./emi.js";
//   const session = await EmiSession.open();
//   session.addEventListener("estimate", (event) => console.log(event.detail.estimate.intensities));
//   const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
//   session.send(await navigator.mediaDevices.getUserMedia({ video: true, audio }));
//
// Types and docs of every part: emi.d.ts. The protocol: docs/web.md.

export const PROTOCOL = 1;
const SOUND = 1;
const PICTURE = 2;
const HEADER_BYTES = 16;
const MAX_WAITING_BYTES = 256 * 1024; // in the socket; above it pictures are left out, never sound
const BACK_OFF_MS = [250, 500, 1000, 2000, 4000, 4000];
const KEPT_MS = 9000; // media that are sent again when another server takes the session over; it takes none older than 10 s
const PICTURE_MS = 200; // between pictures that are kept
const SOUND_STARTS_MS = 3000;
const SOUND_STALL_MS = 2000; // of messages that are all late, until their time is believed
const SOUND_LATE_MS = 250;
const SILENT_MS = 2000; // while it runs, something comes five times a second
const ASK_AFTER_MS = 1000; // of silence, it is asked who has the session
const ASK_MS = 5000; // for the answer: a proxy may itself wait for 1.5 s, and be busy
const OWN_MS = 1500; // for the answer of its own address, where another one has answered
const OTHER_MS = 3000; // for a connection, where there are other addresses
const BEGIN_MS = 10000; // for an answer that must not come twice

/** One binary message: 16 bytes of header, then the payload. */
export function packMedia(kind, timeMs, payload, rateHz = 0) {
  const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, kind);
  view.setUint32(4, rateHz, true);
  view.setFloat64(8, timeMs, true);
  bytes.set(new Uint8Array(payload.buffer ?? payload, payload.byteOffset ?? 0, payload.byteLength), HEADER_BYTES);
  return bytes;
}

export class EmiSession extends EventTarget {
  #servers; #token; #key = randomKey(); #socket; #stops = []; #ended = false; #attempt = 0; #id; #role; #pictures; #faces; #landmarks = false;
  #transport; #ice; #peer; #channel; #stream; #asked; #clock; #up = false; #back = false; #seq = -1; #undelivered = 0; #muted = false; #paused = false; #kept = []; #pictureMs = -Infinity; #moved = false; #lastMs; #heardMs = Infinity; #silent = false; #watch; #askMs = -Infinity;
  pictures = { sent: 0, leftOut: 0 };

  /** A new session; rejects with the server's reason, e.g. when all sessions are taken. */
  static async open({ server = location.origin, token = null, faces = false, transport = "websocket" } = {}) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {}, servers = addresses(server);
    const ask = () => fetch(new URL("/v1/sessions", servers[0]), { method: "POST", headers, signal: servers.length > 1 ? AbortSignal.timeout(BEGIN_MS) : undefined });
    let answer = null;
    for (let left = servers.length; answer === null; left--) {
      answer = await ask().catch((error) => { if (left < 2) throw error; servers.push(servers.shift()); return null; });
    }
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    const session = new EmiSession(body.id, { server: servers, token, faces, transport, ice: body.ice });
    if (transport === "websocket" || body.webrtc) return session;
    await session.close();
    throw new Error("The server has no WebRTC: pip install 'emi-live[webrtc]'");
  }

  /** Join a session that exists, e.g. as a viewer. */
  constructor(id, { server = location.origin, token = null, role = "source", pictures = false, faces = false, transport = "websocket", ice = [] } = {}) {
    super();
    this.#transport = transport;
    this.#ice = ice;
    this.#pictures = pictures;
    this.#faces = faces;
    this.#servers = addresses(server);
    this.#token = token;
    this.#id = id;
    this.#role = role;
    this.#watch = setInterval(() => this.#listen(), SILENT_MS / 4);
    if (transport === "websocket") this.#connect(); // WebRTC connects when there is a stream
  }

  get id() { return this.#id; }
  get transport() { return this.#transport; }
  get #base() { return new URL(this.#servers[0]); }
  get connected() { return this.#socket?.readyState === WebSocket.OPEN || this.#channel?.readyState === "open"; }

  /** Send the pictures and the sound of a stream, until `close` or until its tracks end. */
  async send(stream, { framesPerSecond = 15, width = 640, quality = 0.8 } = {}) {
    this.#stream = stream;
    if (this.#transport === "webrtc") return this.#connectPeer();
    const [video] = stream.getVideoTracks();
    const [audio] = stream.getAudioTracks();
    if (video) this.#stops.push(await sendPictures(video, this.#post, { framesPerSecond, width, quality }, this.pictures));
    if (audio) this.#stops.push(await sendSound(audio, this.#post));
  }

  /** Set a marker in the next estimate. */
  mark() { this.#command("mark"); }
  pause() { this.#paused = true; this.#command("pause"); } // at once: nothing more is kept
  resume() { this.#paused = false; this.#command("resume"); }
  mute() { this.#muted = true; this.#command("mute"); }
  unmute() { this.#muted = false; this.#command("unmute"); }
  /** Read the face nearest to a point (x, y), in fractions of the picture as it is sent; without one, the largest. */
  follow(at) { this.#command("follow", at && { at }); }
  /** Whether `faces` events carry the points of the followed face. */
  showLandmarks(on = true) {
    this.#landmarks = on;
    this.#command(on ? "show_landmarks" : "hide_landmarks");
  }

  /** End the session, if this is its source, and stop; the tracks of the stream stay open. */
  async close() {
    if (this.#ended) return;
    const connected = this.connected;
    if (this.#role === "source") this.#command("end");
    this.#finish("ended by this page");
    if (connected || this.#role !== "source") return;
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {}; // it holds its place until it is told
    await fetch(new URL(`/v1/sessions/${this.#id}`, this.#base), { method: "DELETE", headers, keepalive: true }).catch(() => {});
  }

  #connect() {
    const url = new URL(`/v1/sessions/${this.#id}`, this.#base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (this.#role !== "source") url.searchParams.set("role", this.#role);
    else url.searchParams.set("key", this.#key); // by which it takes the place of its own old connection
    if (this.#pictures) url.searchParams.set("pictures", "1");
    if (this.#faces) url.searchParams.set("faces", "1");
    if (this.#lastMs !== undefined) url.searchParams.set("last_ms", this.#lastMs);
    if (this.#token) url.searchParams.set("token", this.#token);
    this.#up = false;
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#received(JSON.parse(data)) : this.#pictured(data));
    socket.onclose = () => this.#lost();
    this.#socket = socket;
    if (this.#servers.length > 1) {
      wait(OTHER_MS).then(() => { if (this.#socket === socket && socket.readyState === WebSocket.CONNECTING) this.#hangUp(); });
    }
  }

  /** End the connection at once: a server that is gone would not answer a closing message. */
  #hangUp() {
    const socket = this.#socket;
    this.#socket = null;
    if (socket) { socket.onopen = socket.onmessage = socket.onclose = null; socket.close(); }
    if (this.#peer) this.#drop();
    this.#lost();
  }

  /** Connect by WebRTC; rejects if it does not come about within ten seconds. */
  async #connectPeer() {
    this.#up = false;
    const peer = this.#peer = new RTCPeerConnection({ iceServers: this.#ice }), stopped = () => this.#peer !== peer;
    const channel = this.#channel = peer.createDataChannel("emi");
    for (const track of this.#stream.getTracks()) peer.addTrack(track, this.#stream);
    const lost = () => { if (!stopped()) { this.#drop(); this.#lost(); } };
    channel.onmessage = ({ data }) => this.#received(JSON.parse(data));
    try {
      await peer.setLocalDescription();
      await Promise.race([gathered(peer), wait(1000)]);
      const url = new URL(`/v1/sessions/${this.#id}/offer`, this.#base);
      url.searchParams.set("key", this.#key);
      if (this.#faces) url.searchParams.set("faces", "1");
      if (this.#lastMs !== undefined) url.searchParams.set("last_ms", this.#lastMs);
      const headers = { "Content-Type": "application/json", ...(this.#token && { Authorization: `Bearer ${this.#token}` }) };
      const signal = AbortSignal.timeout(BEGIN_MS);
      const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(peer.localDescription), signal });
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.error);
      if (body.id !== this.#id) [this.#id, this.#moved, this.#seq] = [body.id, true, -1];
      await peer.setRemoteDescription(body);
      await Promise.race([opened(channel), wait(10_000).then(() => { throw new Error("WebRTC does not connect"); })]);
    } catch (error) {
      if (!stopped()) this.#drop();
      throw error;
    }
    const tellClock = () => this.#command("clock", { ms: performance.now() });
    this.#clock = setInterval(tellClock, 1000);
    tellClock();
    channel.onclose = lost;
    peer.onconnectionstatechange = () => { if (["failed", "closed"].includes(peer.connectionState)) lost(); };
    this.#opened();
  }

  #drop() {
    clearInterval(this.#clock);
    const peer = this.#peer;
    this.#peer = this.#channel = null;
    peer?.close();
  }

  #opened() { this.#up = true; this.#asked = false; }

  /** A network that goes silent closes nothing, and the browser may take half a minute to notice. */
  #listen() {
    const nowMs = performance.now(), quietMs = this.connected ? nowMs - this.#heardMs : 0, silent = quietMs > SILENT_MS;
    if (silent !== this.#silent) this.#tell((this.#silent = silent) ? "silent" : "heard", {});
    if (quietMs > ASK_AFTER_MS && nowMs - this.#askMs > ASK_AFTER_MS) this.#ask();
  }

  /** A connection need not end with its server: if another server answers for it, connect there. */
  async #ask() {
    this.#askMs = Infinity;
    const peer = this.#peer, socket = this.#socket, heardMs = this.#heardMs;
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    const ask = (server) => fetch(new URL(`/v1/sessions/${this.#id}/latest`, server), { headers, signal: AbortSignal.timeout(ASK_MS) })
      .then((answer) => this.#judge(answer)).then((says) => ({ server, says }));
    const known = (found) => { if (found.says === "unknown") throw new Error("another program answers"); return found; };
    const [own, ...rest] = this.#servers.map(ask), other = Promise.any(rest.map((answer) => answer.then(known)));
    other.catch(() => {});
    const elsewhere = wait(OWN_MS).then(() => other).then(({ server }) => ({ server, says: "elsewhere" }));
    const found = await Promise.any([own, elsewhere]).catch(() => null); // if no address answers, the network may be cut, and come back
    this.#askMs = performance.now();
    if (found?.says === "not delivered") this.#undelivered++;
    const lost = found && (["elsewhere", "ended"].includes(found.says) || this.#undelivered > 1);
    if (!lost || this.#ended || this.#peer !== peer || this.#socket !== socket || this.#heardMs !== heardMs) return;
    this.#servers.sort((a, b) => (b === found.server) - (a === found.server));
    this.#hangUp();
  }

  /** What an answer to `…/latest` says of the session. Proxies answer too, and not in JSON. */
  async #judge(answer) {
    const json = answer.headers.get("content-type")?.startsWith("application/json");
    if (answer.status === 503 && json) return "elsewhere";
    if (answer.status === 404 && json) return "ended";
    if (!answer.ok) return "unknown";
    const { seq = -1 } = json ? await answer.json() : {};
    return seq > this.#seq ? "not delivered" : "here";
  }

  #received(message) {
    this.#attempt = this.#undelivered = 0;
    if (message.type === "state") this.#heardMs = message.state === "loading" ? Infinity : performance.now();
    else if (this.#heardMs < Infinity) this.#heardMs = performance.now();
    if (message.type === "hello" && message.session !== this.#id) {
      this.#id = message.session;
      this.#seq = -1;
      this.#moved = this.#role === "source";
    }
    if (message.type === "estimate") {
      this.#lastMs = message.end_ms ?? this.#lastMs;
      this.#seq = message.estimate.seq;
    }
    if (message.type === "state" && message.state !== "loading") {
      if (this.#back || this.#moved) this.#comeBack(message);
      else [this.#muted, this.#paused] = [message.muted, message.state === "paused"];
    }
    if (message.state === "running" && !this.#asked) {
      this.#asked = true;
      if (this.#landmarks) this.showLandmarks();
    }
    if (message.type === "bye") return this.#finish(message.reason);
    this.#tell(message.type, message);
  }

  #pictured(data) {
    const capturedMs = new DataView(data).getFloat64(8, true);
    this.#tell("picture", { jpeg: new Blob([data.slice(HEADER_BYTES)], { type: "image/jpeg" }), capturedMs });
  }

  #lost() {
    if (this.#ended) return;
    this.#heardMs = Infinity;
    this.#silent = false;
    this.#back = true;
    if (!this.#up) this.#servers.push(this.#servers.shift());
    const delayMs = BACK_OFF_MS[this.#attempt++];
    if (delayMs === undefined) return this.#finish("the server cannot be reached");
    this.#tell("disconnected", { retryMs: delayMs });
    setTimeout(() => {
      if (this.#ended) return;
      if (this.#transport === "webrtc") this.#connectPeer().catch(() => this.#lost());
      else this.#connect();
    }, delayMs);
  }

  #finish(reason) {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#watch);
    for (const stop of this.#stops.splice(0)) stop();
    this.#socket?.close();
    if (this.#peer) this.#drop();
    this.#tell("bye", { type: "bye", reason });
  }

  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
  #command(type, more) { if (this.connected) (this.#channel ?? this.#socket).send(JSON.stringify({ type, ...more })); }

  /** Keep the last seconds of media, with fewer pictures. */
  #keep(kind, timeMs, message) {
    if (this.#paused || (this.#muted && kind === SOUND)) return;
    if (kind === PICTURE && timeMs - this.#pictureMs < PICTURE_MS) return;
    if (kind === PICTURE) this.#pictureMs = timeMs;
    this.#kept.push({ timeMs, message });
    while (this.#kept[0].timeMs < timeMs - KEPT_MS) this.#kept.shift();
  }

  /** Mute and pause as before the cut; send the clock and the last media to a server that has taken the session over. */
  #comeBack({ muted, state }) {
    const again = this.#moved && this.#transport === "websocket";
    [this.#back, this.#moved] = [false, false];
    if (this.#role !== "source") return;
    if (this.#muted && !muted) this.#command("mute");
    if (this.#paused && state !== "paused") this.#command("pause");
    [this.#muted, this.#paused] = [this.#muted || muted, this.#paused || state === "paused"];
    if (!again) return;
    const nowMs = performance.now();
    this.#command("clock", { ms: nowMs });
    for (const { timeMs, message } of this.#kept) if (timeMs >= nowMs - KEPT_MS) this.#socket.send(message);
  }

  #post = (kind, timeMs, payload, rateHz) => {
    const message = packMedia(kind, timeMs, payload, rateHz);
    this.#keep(kind, timeMs, message);
    if (this.#moved) return true; // it is sent with what is kept
    if (!this.connected || (kind === PICTURE && this.#socket.bufferedAmount > MAX_WAITING_BYTES)) return false;
    this.#socket.send(message);
    return true;
  };
}

const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const addresses = (server) => [server].flat().map((one) => new URL(one).href);
const wait = (ms) => new Promise((done) => { setTimeout(done, ms); });
const opened = (channel) => new Promise((done) => { channel.onopen = done; });
const gathered = (peer) => new Promise((done) => {
  peer.onicegatheringstatechange = () => { if (peer.iceGatheringState === "complete") done(); };
});

async function sendPictures(track, post, { framesPerSecond, width, quality }, counts) {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = new MediaStream([track]);
  await video.play();
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { alpha: false });
  const shortestMs = 0.9 * 1000 / framesPerSecond; // cameras jitter
  let stopped = false, busy = false, lastMs = -Infinity;
  const nextFrame = video.requestVideoFrameCallback
    ? (use) => video.requestVideoFrameCallback((nowMs, frame) => use(frame.captureTime ?? nowMs))
    : (use) => setTimeout(() => use(performance.now()), shortestMs);

  function take(capturedMs) {
    if (stopped) return;
    nextFrame(take);
    if (capturedMs - lastMs < shortestMs || !video.videoWidth) return;
    if (busy) { counts.leftOut++; return; }
    lastMs = capturedMs;
    busy = true;
    const scale = Math.min(1, width / video.videoWidth);
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(async (blob) => {
      const sent = blob && !stopped && post(PICTURE, capturedMs, new Uint8Array(await blob.arrayBuffer()), 0);
      sent ? counts.sent++ : counts.leftOut++;
      busy = false;
    }, "image/jpeg", quality);
  }
  nextFrame(take);
  return () => { stopped = true; video.srcObject = null; };
}

async function sendSound(track, post) {
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("./microphone.js", import.meta.url));
  const source = context.createMediaStreamSource(new MediaStream([track]));
  const node = new AudioWorkletNode(context, "emi-microphone", { numberOfOutputs: 0 });
  const clock = soundClock();
  node.port.onmessage = ({ data: { samples, first } }) => {
    const startMs = 1000 * first / context.sampleRate;
    const lengthMs = 1000 * samples.length / context.sampleRate;
    post(SOUND, clock(startMs, lengthMs, performance.now()), samples, context.sampleRate);
  };
  source.connect(node);
  const stop = () => { source.disconnect(); context.close(); };
  await Promise.race([context.resume(), wait(SOUND_STARTS_MS)]);
  if (context.state === "running") return stop;
  stop();
  throw new Error("The browser does not run its sound. Firefox needs a sound output to hear a microphone: connect one, or go on without microphone.");
}

/**
 * Gives sound its time: a function of a message's own start, its length and when it came (performance.now()).
 * The lead of the fastest message so far holds, but the sound's own time stands still when the sound does, as
 * while a laptop sleeps: if all messages of some seconds are slower than that, theirs is taken.
 */
export function soundClock() {
  let leadMs = Infinity, least = Infinity, before = Infinity, turn = { startMs: 0, nowMs: -Infinity };
  return (startMs, lengthMs, nowMs) => {
    const found = nowMs - lengthMs - startMs;
    // In a burst the sound advances and the time does not; after it stood still, both do.
    if (Math.min(startMs - turn.startMs, nowMs - turn.nowMs) > SOUND_STALL_MS) {
      [before, least, turn] = [least, Infinity, { startMs, nowMs }];
    }
    least = Math.min(least, found);
    const recent = Math.min(least, before);
    leadMs = recent > leadMs + SOUND_LATE_MS ? recent : Math.min(leadMs + lengthMs / 1000, found);
    return Math.max(0, startMs + leadMs);
  };
}
