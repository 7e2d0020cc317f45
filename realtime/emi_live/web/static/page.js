// The page of `emi serve`: consent, own picture, six bars with their history, words, markers, recording.
import { EmiSession } from "./emi.js";
import { showFaces } from "./faces.js";

const HISTORY_S = 120, SPANS_S = [30, 60, HISTORY_S]; // curves begin wide, then hold more
const STATE_WORDS = { live: "used", missing: "missing", failed: "failed", unavailable: "not available" };
const MODALITIES = { vision: "Vision", audio: "Audio", text: "Text" };
const $ = (id) => document.getElementById(id);
const wishes = new URLSearchParams(location.hash.slice(1));
const token = wishes.get("token"), TRANSPORT = wishes.get("transport") ?? "websocket";

let session = null, stream = null, paused = false, muted = false, recording = null, rows = {}, words = new Map();
let history = [], marks = [], lags = [];

$("server").textContent = location.host;
$("start").onclick = start;
$("stop").onclick = () => session?.close();
$("pause").onclick = () => (paused ? session?.resume() : session?.pause());
$("mute").onclick = () => (muted ? session?.unmute() : session?.mute());
$("mark").onclick = mark;
$("record").onclick = record;
$("mesh").onclick = () => {
  const on = $("mesh").getAttribute("aria-pressed") !== "true";
  press("mesh", on);
  session?.showLandmarks(on);
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("live").hidden) return;
  const key = { p: "pause", u: "mute", m: "mark", r: "record", l: "mesh" }[event.key.toLowerCase()];
  if (key) { $(key).click(); event.preventDefault(); }
});
addEventListener("pagehide", () => session?.close());
new ResizeObserver(drawHistory).observe($("emotions"));

watchThisMachine();

/** With `emi-live --web` the server has the camera: show it at once. */
async function watchThisMachine() {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const { id } = await (await fetch("/v1/local", { headers })).json();
  if (!id) return;
  session = new EmiSession(id, { role: "controller", pictures: true, faces: true });
  listen(session);
  session.addEventListener("picture", ({ detail: { jpeg } }) => {
    URL.revokeObjectURL($("remote").src);
    $("remote").src = URL.createObjectURL(jpeg);
    $("remote").hidden = false;
    $("no-camera").hidden = true;
  });
  $("video").hidden = $("consent").hidden = $("stop").hidden = true;
  $("no-camera").hidden = $("live").hidden = false;
}

async function start() {
  const wanted = { video: !$("without-camera").checked, audio: !$("without-microphone").checked };
  problem("");
  $("start").disabled = true;
  try {
    if (!wanted.video && !wanted.audio) throw new Error("Choose the camera, the microphone, or both.");
    stream = await openMedia(wanted);
    await begin(TRANSPORT);
    $("video").srcObject = stream;
    $("no-camera").hidden = stream.getVideoTracks().length > 0;
    await $("video").play();
    $("consent").hidden = true;
    $("live").hidden = false;
    $("pause").focus({ preventScroll: true });
  } catch (error) {
    release();
    status("not started", "");
    problem(explain(error));
  }
  $("start").disabled = false;
}

/** Open a session and send to it; where WebRTC does not connect, say so and use the WebSocket. */
async function begin(transport) {
  let opened = null;
  try {
    opened = session = await EmiSession.open({ token, faces: true, transport });
    listen(opened);
    await opened.send(stream);
  } catch (error) {
    if (transport !== "webrtc") throw error;
    session = null;
    await opened?.close();
    await begin("websocket");
    $("warning").textContent = `${error.message}. The WebSocket is used.`;
  }
}

async function openMedia({ video, audio }) {
  if (!navigator.mediaDevices) throw new Error("insecure");
  return navigator.mediaDevices.getUserMedia({
    video: video && { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: "user" },
    audio: audio && { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
}

function explain(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The browser may not use the camera or the microphone. Allow them in the address bar, then press Start again.";
    case "NotFoundError": return "There is no camera or no microphone. Tick what you do not have, then press Start again.";
    case "NotReadableError": return "Another program uses the camera or the microphone. Close it, then press Start again.";
  }
  if (error.message === "insecure")
    return "Browsers give the camera only to https pages and to this machine's own. Open this page as http://localhost, or use https.";
  return error instanceof TypeError ? "The server cannot be reached. Is `emi serve` still running?" : error.message;
}

function listen(live) {
  history = []; marks = []; lags = []; words = new Map();
  const on = (name, use) => live.addEventListener(name, ({ detail }) => use(detail));
  on("hello", (hello) => {
    if (!Object.keys(rows).length) buildRows(hello.emotions);
    $("notice").hidden = !hello.notice;
    $("notice").textContent = hello.notice ?? "";
  });
  on("state", ({ state, muted: silent }) => {
    paused = state === "paused"; muted = silent;
    press("pause", paused); press("mute", muted);
    status({ loading: "loading models …", running: "live", paused: "paused", lost: "waiting for your page" }[state], state);
  });
  on("estimate", show);
  on("words", showWords);
  on("faces", (faces) => showFaces(faces, (at) => live.follow(at)));
  on("warning", ({ text, count }) => { $("warning").textContent = count > 1 ? `${text} (${count} times)` : text; });
  on("silent", () => status("nothing comes from the server", "trouble"));
  on("heard", () => { if (!paused) status("live", "running"); });
  on("disconnected", () => status("connection lost, trying again …", "trouble"));
  on("bye", ({ reason }) => {
    if (session !== live) return;
    release();
    status("ended", "");
    if (!$("stop").hidden) {
      $("consent").hidden = false;
      $("live").hidden = true;
    }
    problem(reason === "ended by this page" ? "" : `It has ended: ${reason}.`);
  });
}

function release() {
  if (recording) record();
  session?.close();
  session = null;
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = $("video").srcObject = null;
  press("mesh", false);
  showFaces({ boxes: [] });
}

/** What is shown of an estimate: its intensities, values of other labels, or the probability of ambivalence. */
function valuesOf(estimate) {
  return "ambivalence" in estimate ? { ambivalence: estimate.ambivalence } : estimate.intensities;
}

function shareOf(value, range) {
  return range ? (value - range[0]) / (range[1] - range[0]) : value;
}

function buildRows(emotions) {
  rows = {};
  $("emotions").replaceChildren();
  for (const name of emotions) {
    const row = document.createElement("div");
    row.className = "emotion";
    row.dataset.emotion = name;
    const label = name.replaceAll("_", " ");
    row.innerHTML = '<span class="name"></span><div class="bar" role="meter" aria-valuemin="0" aria-valuemax="1" aria-valuenow="0">'
      + '<i></i><s hidden></s></div><output>–</output><span class="why"></span><canvas role="img"></canvas>';
    row.querySelector(".name").textContent = label;
    row.querySelector(".bar").setAttribute("aria-label", label);
    row.querySelector("canvas").setAttribute("aria-label", `${label}, the last two minutes`);
    row.style.setProperty("--hue", `var(--${name}, var(--accent))`);
    $("emotions").append(row);
    rows[name] = { row, bar: row.querySelector(".bar"), fill: row.querySelector("i"), band: row.querySelector("s"),
      value: row.querySelector("output"), why: row.querySelector(".why"), canvas: row.querySelector("canvas") };
  }
  if ($("modalities").children.length) return;
  for (const [name, title] of Object.entries(MODALITIES)) {
    const entry = document.createElement("div");
    entry.id = name;
    entry.innerHTML = "<dt></dt><dd></dd><dd></dd>";
    entry.firstChild.textContent = title;
    $("modalities").append(entry);
  }
}

function show({ estimate, end_ms: endMs }) {
  const { modalities, t } = estimate, values = valuesOf(estimate), shares = {};
  if (Object.keys(values).join() !== Object.keys(rows).join()) buildRows(Object.keys(values));
  for (const [name, value] of Object.entries(values)) {
    const { bar, fill, band, value: output, why } = rows[name], interval = estimate.intervals?.[name];
    shares[name] = shareOf(value, estimate.ranges?.[name]);
    fill.style.transform = `scaleX(${shares[name]})`;
    band.hidden = !interval;
    if (interval) [band.style.left, band.style.right] = [`${100 * interval[0]}%`, `${100 * (1 - interval[1])}%`];
    output.textContent = value.toFixed(2);
    bar.setAttribute("aria-valuenow", shares[name].toFixed(2));
    bar.setAttribute("aria-valuetext", interval ? `${value.toFixed(2)}, between ${interval.join(" and ")}` : value.toFixed(2));
    why.textContent = because(name, modalities);
  }
  for (const [name, report] of Object.entries(modalities)) {
    const [, state, age] = $(name).children;
    $(name).className = report.state;
    state.textContent = STATE_WORDS[report.state] + (report.reason ? `: ${report.reason}` : "") + neutral(estimate.baseline, name);
    age.textContent = report.age_ms === null ? "" : ageWords(report.age_ms);
  }
  history.push({ t, shares });
  while (history.length && history[0].t < t - HISTORY_S) history.shift();
  if (estimate.marker) marks.push(t);
  recording?.push(estimate);
  drawHistory();
  if (endMs !== null && stream) lags = [...lags.slice(-49), performance.now() - endMs];
  figures();
}

/** How far the person's own neutral is known, if it is learned. */
function neutral(baseline, modality) {
  const known = baseline?.[modality];
  if (!known) return "";
  if (known.ready) return ", own neutral";
  const rest = baseline.mode === "calibrate" && modality === "vision" ? "rest your face" : "learning own neutral";
  return `, ${rest}: ${known.seconds.toFixed(0)} of 5 s`;
}

function because(emotion, modalities) {
  const parts = Object.entries(modalities).filter(([, { contribution }]) => Math.abs(contribution?.[emotion] ?? 0) >= 0.01);
  return parts.map(([name, report]) => `${name} ${signed(report.contribution[emotion])}`).join(" ");
}

function drawHistory() {
  const end = history.at(-1)?.t ?? 0, past = end - (history[0]?.t ?? 0);
  const span = SPANS_S.find((seconds) => past <= seconds) ?? HISTORY_S, shown = span < HISTORY_S ? `${span} seconds` : "two minutes";
  if ($("span").textContent !== shown) $("span").textContent = shown;
  for (const [name, { canvas, row }] of Object.entries(rows)) {
    const scale = devicePixelRatio, width = canvas.clientWidth * scale, height = canvas.clientHeight * scale;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const x = (t) => width * (1 - (end - t) / span), y = (value) => height - 1 - value * (height - 3 * scale);
    const colours = getComputedStyle(row), hue = colours.getPropertyValue(`--${name}`) || colours.color;
    context.clearRect(0, 0, width, height);
    context.strokeStyle = colours.getPropertyValue("--line");
    context.beginPath();
    for (const level of [0, 0.5, 1]) { context.moveTo(0, y(level)); context.lineTo(width, y(level)); }
    context.stroke();
    context.strokeStyle = colours.getPropertyValue("--ink");
    context.beginPath();
    for (const t of marks) { context.moveTo(x(t), 0); context.lineTo(x(t), height); }
    context.stroke();
    context.strokeStyle = hue;
    context.lineWidth = 2 * scale;
    context.beginPath();
    let before = null;
    for (const { t, shares } of history) {
      if (!(name in shares)) continue;
      before !== null && t - before < 2 ? context.lineTo(x(t), y(shares[name])) : context.moveTo(x(t), y(shares[name]));
      before = t;
    }
    context.stroke();
    context.lineWidth = 1;
  }
}

function showWords({ words: changed, withdrawn, language }) {
  const fixed = [];
  for (const word of changed) {
    if (word.committed && !words.get(word.number)?.committed) fixed.push(word.text);
    words.set(word.number, word);
  }
  for (const number of withdrawn) words.delete(number);
  const all = [...words.values()].sort((a, b) => a.start - b.start).slice(-80);
  $("words").replaceChildren(...all.flatMap(({ text, committed }) => {
    const part = document.createElement(committed ? "span" : "i");
    part.textContent = text.trim();
    return [part, " "];
  }));
  $("words").scrollTop = $("words").scrollHeight;
  if (fixed.length) $("spoken").textContent = fixed.join(" ");
  $("language").textContent = language && language !== "en" ? `language: ${language}` : "";
}

function mark() {
  session?.mark();
}

function record() {
  if (!session && !recording) return;
  if (recording === null) {
    recording = [];
    $("downloads").replaceChildren();
  } else {
    const name = `emi-live-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}`;
    $("downloads").replaceChildren(
      download(`${name}.jsonl`, recording.map((line) => JSON.stringify(line)).join("\n") + "\n"),
      " ", download(`${name}.csv`, csv(recording)));
    recording = null;
  }
  press("record", recording !== null);
}

function csv(lines) {
  const names = Object.keys(rows);
  const head = ["t", "wall", ...names, ...Object.keys(MODALITIES).map((name) => `${name}_state`), "words", "marker"];
  const cell = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  return [head, ...lines.map((line) => [line.t, line.wall, ...names.map((name) => valuesOf(line)[name]),
    ...Object.keys(MODALITIES).map((name) => line.modalities[name].state), line.modalities.text.committed, line.marker])]
    .map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.textContent = name;
  return link;
}

function figures() {
  const sorted = [...lags].sort((a, b) => a - b), middle = sorted[sorted.length >> 1];
  const { sent, leftOut } = session?.pictures ?? { sent: 0, leftOut: 0 };
  $("figures").textContent = (middle === undefined ? "" : `${Math.round(middle)} ms after capture`)
    + (sent ? ` · ${sent} pictures sent` : "") + (leftOut ? `, ${leftOut} left out` : "") + (recording ? ` · recording, ${recording.length}` : "");
}

function status(text, state) {
  $("status").textContent = text;
  $("status").className = state === "running" ? "running" : state === "trouble" ? "trouble" : "";
}

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

function press(id, on) { $(id).setAttribute("aria-pressed", on); }
function signed(value) { return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`; }
function ageWords(ms) { return ms < 1000 ? `${Math.round(ms / 10) * 10} ms` : `${(ms / 1000).toFixed(1)} s`; }
