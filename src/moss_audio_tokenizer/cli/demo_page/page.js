// The page: a sound comes in, its codes are drawn, and what they say is played as it is decoded.
//
// Owns the elements and the sound; the codec is codec.js's.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { Codec } from "./codec.js";

/** Frames that are decoded at a time while playing. */
const CHUNK_FRAMES = 4;
/** Sound that is decoded ahead of what is heard. */
const AHEAD_SECONDS = 0.6;

const element = (id) => document.getElementById(id);
// What the page knows, for the console and for tests.
const demo = { codec: null, codes: null, played: null, state: "loading", error: null };
window.demo = demo;

let audioContext = null;
let recorder = null;
let playing = null;

function show(state, text) {
  demo.state = state;
  element("status").textContent = text;
  const ready = demo.codec !== null && state === "ready";
  element("record").disabled = demo.codec === null || state === "encoding" || state === "playing";
  element("file").disabled = !ready;
  element("play").disabled = demo.codes === null || (state !== "ready" && state !== "playing");
  element("play").textContent = state === "playing" ? "Stop" : "Play";
  element("record").textContent = state === "recording" ? "Stop recording" : "Record";
}

function fail(error) {
  demo.error = String(error);
  show(demo.codec === null ? "broken" : "ready", `This failed: ${error.message ?? error}`);
}

/** Handlers that say on the page what went wrong. */
const guarded = (work) => (event) => Promise.resolve(work(event)).catch(fail);

function context() {
  audioContext ??= new AudioContext({ sampleRate: demo.codec.samplingRate });
  return audioContext;
}

// Sound in

async function encodeBlob(blob) {
  const buffer = await context().decodeAudioData(await blob.arrayBuffer());
  await encode(asChannels(buffer));
}

/** A decoded file with as many channels as the model has: mixed down, or repeated. */
function asChannels(buffer) {
  const given = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  const wanted = demo.codec.channels;
  if (given.length === wanted) return given;
  const mixed = Float32Array.from({ length: buffer.length }, (_, i) =>
    given.reduce((sum, samples) => sum + samples[i], 0) / given.length,
  );
  return Array.from({ length: wanted }, () => mixed);
}

async function encode(channels) {
  if (channels[0].length === 0) throw new Error("there is no sound in it");
  const seconds = channels[0].length / demo.codec.samplingRate;
  const started = performance.now();
  demo.codes = await demo.codec.encode(channels, (share) => {
    show("encoding", `Encoding ${seconds.toFixed(1)} s: ${Math.round(100 * share)}%`);
  });
  const speed = seconds / ((performance.now() - started) / 1000);
  draw();
  show("ready", `${seconds.toFixed(1)} s encoded, ${speed.toFixed(0)} x as fast as it is heard.`);
}

async function toggleRecording() {
  if (recorder !== null) {
    recorder.stop();
    return;
  }
  const source = await navigator.mediaDevices.getUserMedia({ audio: true });
  const pieces = [];
  recorder = new MediaRecorder(source);
  recorder.ondataavailable = (event) => pieces.push(event.data);
  recorder.onstop = guarded(async () => {
    recorder = null;
    source.getTracks().forEach((track) => track.stop());
    await encodeBlob(new Blob(pieces));
  });
  recorder.start();
  show("recording", "Recording.");
}

// Codes

function layersInUse() {
  return Number(element("layers").value);
}

/** A column for each frame, a row for each layer; layers that are not used are pale. */
function draw() {
  const used = layersInUse();
  const kbps = demo.codec.bitrate(used);
  element("bitrate").textContent = `${used} of ${demo.codec.numQuantizers} layers: ${kbps} kbps`;
  if (demo.codes === null) return;
  const canvas = element("codes");
  const frames = demo.codes[0].length;
  canvas.width = frames;
  canvas.height = demo.codes.length;
  const painter = canvas.getContext("2d");
  demo.codes.forEach((layer, row) => {
    layer.forEach((code, frame) => {
      const hue = (360 * code) / demo.codec.codebookSize;
      painter.fillStyle = row < used ? `hsl(${hue} 75% 50%)` : `hsl(${hue} 20% 90%)`;
      painter.fillRect(frame, row, 1, 1);
    });
  });
}

// Sound out

/** Decode a chunk at a time, a little ahead of what is heard, with the layers chosen by then. */
async function play() {
  if (playing !== null) {
    playing.stopped = true;
    return;
  }
  const run = { stopped: false, sources: [] };
  playing = run;
  demo.played = [];
  const output = context();
  await output.resume();
  const decoder = demo.codec.decoder(CHUNK_FRAMES);
  const frames = demo.codes[0].length;
  let due = output.currentTime + 0.1;
  try {
    for (let start = 0; start < frames && !run.stopped; start += CHUNK_FRAMES) {
      show("playing", `Playing: ${(start / demo.codec.frameRate).toFixed(1)} s`);
      const count = Math.min(CHUNK_FRAMES, frames - start);
      const channels = await decoder.step(demo.codes, start, count, layersInUse());
      demo.played.push(channels);
      due = schedule(output, run, channels, due);
      const wait = due - output.currentTime - AHEAD_SECONDS;
      if (wait > 0) await new Promise((done) => setTimeout(done, 1000 * wait));
    }
    const rest = run.stopped ? 0 : due - output.currentTime;
    if (rest > 0) await new Promise((done) => setTimeout(done, 1000 * rest));
  } finally {
    run.sources.forEach((source) => source.stop());
    playing = null;
  }
  show("ready", run.stopped ? "Stopped." : "Played.");
}

/** Put a chunk after the ones before it; returns when it ends. */
function schedule(output, run, channels, due) {
  const buffer = output.createBuffer(channels.length, channels[0].length, demo.codec.samplingRate);
  channels.forEach((samples, channel) => buffer.copyToChannel(samples, channel));
  const source = output.createBufferSource();
  source.buffer = buffer;
  source.connect(output.destination);
  const start = Math.max(due, output.currentTime);
  source.start(start);
  run.sources.push(source);
  return start + buffer.duration;
}

// Start

async function start() {
  // Threads need a page that is isolated from others; moss-audio demo sees to that.
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  show("loading", "Loading the model.");
  demo.codec = await Codec.load(ort, "./model");
  element("layers").max = element("layers").value = demo.codec.numQuantizers;
  element("layers").oninput = draw;
  element("file").onchange = guarded(async (event) => {
    if (event.target.files.length > 0) await encodeBlob(event.target.files[0]);
  });
  element("record").onclick = guarded(toggleRecording);
  element("play").onclick = guarded(play);
  draw();
  show("ready", "Ready: record something, or choose a sound file.");
}

demo.encode = encode;
start().catch(fail);
