// The page: encodes a sound, draws its codes, and plays them while it decodes.
//
// Owns the elements and the playback; codec.js is the codec.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { Codec } from "./codec.js";

/** Frames that are decoded at a time while playing. */
const CHUNK_FRAMES = 4;
/** How far decoding runs ahead of playback. */
const AHEAD_SECONDS = 0.6;

const element = (id) => document.getElementById(id);
// The state of the page, for the console and for tests.
const demo = { codec: null, codes: null, original: null, played: null, state: "loading", error: null };
window.demo = demo;

let audioContext = null;
let recorder = null;
let playing = null;

function show(state, text) {
  demo.state = state;
  element("status").textContent = text;
  const ready = demo.codec !== null && state === "ready";
  const hasCodes = demo.codes !== null;
  element("record").disabled = !(ready || state === "recording");
  element("sample").disabled = element("file").disabled = !ready;
  element("choose").classList.toggle("disabled", !ready);
  element("play").disabled = !(hasCodes && (ready || state === "playing"));
  element("original").disabled = !(hasCodes && (ready || state === "original"));
  element("download").disabled = !(hasCodes && ready);
  element("play").textContent = state === "playing" ? "Stop" : "Play";
  element("original").textContent = state === "original" ? "Stop" : "Original";
  element("record").textContent = state === "recording" ? "Stop recording" : "Record";
}

function fail(error) {
  demo.error = String(error);
  show(demo.codec === null ? "broken" : "ready", `This failed: ${error.message ?? error}`);
}

/** A handler that shows its errors on the page. */
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

/** The channels of a decoded file, converted to the model's number: mixed down, or repeated. */
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
  demo.codes = demo.original = null;
  const started = performance.now();
  const codes = await demo.codec.encode(channels, (share) => {
    show("encoding", `Encoding ${seconds.toFixed(1)} s: ${Math.round(100 * share)}%`);
  });
  demo.codes = codes;
  demo.original = channels;
  const speed = seconds / ((performance.now() - started) / 1000);
  draw();
  show("ready", `${seconds.toFixed(1)} s encoded, ${speed.toFixed(0)} times as fast as real time.`);
}

async function toggleRecording() {
  if (recorder !== null) {
    recorder.stop();
    return;
  }
  const source = await navigator.mediaDevices.getUserMedia({ audio: true });
  const chunks = [];
  recorder = new MediaRecorder(source);
  recorder.ondataavailable = (event) => chunks.push(event.data);
  recorder.onstop = guarded(async () => {
    recorder = null;
    source.getTracks().forEach((track) => track.stop());
    await encodeBlob(new Blob(chunks));
  });
  recorder.start();
  show("recording", "Recording.");
}

// Codes

function layersInUse() {
  return Number(element("layers").value);
}

/** A column for each frame, a row for each quantizer; rows that are not used are pale. */
function draw() {
  const used = layersInUse();
  const kbps = demo.codec.bitrate(used);
  element("bitrate").textContent = `${used} of ${demo.codec.numQuantizers} quantizers: ${kbps} kbps`;
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

/** Decode chunk by chunk, a little ahead of playback, with the quantizers chosen at that moment. */
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

/** Play what was recorded or chosen, without the codec. */
async function playOriginal() {
  if (playing !== null) {
    playing.stopped = true;
    playing.sources.forEach((source) => source.stop());
    return;
  }
  const run = { stopped: false, sources: [] };
  playing = run;
  try {
    const output = context();
    await output.resume();
    show("original", "Playing the original.");
    schedule(output, run, demo.original, output.currentTime + 0.05);
    await new Promise((done) => (run.sources[0].onended = done));
  } finally {
    playing = null;
  }
  show("ready", run.stopped ? "Stopped." : "Played.");
}

/** Save the decoded sound, with the quantizers of the slider. */
async function download() {
  const decoder = demo.codec.decoder(CHUNK_FRAMES);
  const frames = demo.codes[0].length;
  const used = layersInUse();
  const samples = demo.original[0].length;
  const channels = demo.original.map(() => new Float32Array(frames * demo.codec.samplesPerFrame));
  for (let start = 0; start < frames; start += CHUNK_FRAMES) {
    show("decoding", `Decoding: ${Math.round((100 * start) / frames)}%`);
    const count = Math.min(CHUNK_FRAMES, frames - start);
    const decoded = await decoder.step(demo.codes, start, count, used);
    channels.forEach((channel, i) => channel.set(decoded[i], start * demo.codec.samplesPerFrame));
  }
  demo.saved = wavFile(channels.map((channel) => channel.subarray(0, samples)), demo.codec.samplingRate);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([demo.saved], { type: "audio/wav" }));
  link.download = `decoded-${demo.codec.bitrate(used)}kbps.wav`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  show("ready", `Saved ${link.download}.`);
}

/** A wav file of 16-bit samples. */
function wavFile(channels, rate) {
  const count = channels.length;
  const size = 2 * count * channels[0].length;
  const view = new DataView(new ArrayBuffer(44 + size));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, count, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * count * rate, true);
  view.setUint16(32, 2 * count, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, size, true);
  channels.forEach((samples, channel) => {
    samples.forEach((value, t) => {
      const sample = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
      view.setInt16(44 + 2 * (t * count + channel), sample, true);
    });
  });
  return view.buffer;
}

/** Schedule a chunk after the ones before it; returns when it ends. */
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
  // Threads need a cross-origin isolated page; moss-audio demo sends the headers for that.
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  show("loading", "Loading the model.");
  demo.codec = await Codec.load(ort, "./model");
  // In this order: a value above the maximum is lowered to it.
  element("layers").max = demo.codec.numQuantizers;
  element("layers").value = demo.codec.numQuantizers;
  element("last").textContent = demo.codec.codebookSize - 1;
  element("frame").textContent = 1000 / demo.codec.frameRate;
  element("layers").oninput = draw;
  element("file").onchange = guarded(async (event) => {
    if (event.target.files.length > 0) await encodeBlob(event.target.files[0]);
  });
  element("record").onclick = guarded(toggleRecording);
  element("play").onclick = guarded(play);
  element("original").onclick = guarded(playOriginal);
  element("download").onclick = guarded(download);
  element("sample").onclick = guarded(async () => {
    const answer = await fetch("./sample.flac");
    if (!answer.ok) throw new Error(`the sample is not there (${answer.status})`);
    await encodeBlob(await answer.blob());
  });
  draw();
  show("ready", "Ready: try the sample, record something, or choose a sound file.");
}

demo.encode = encode;
start().catch(fail);
