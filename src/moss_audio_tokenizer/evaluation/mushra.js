// A MUSHRA test (ITU-R BS.1534) in one page: sounds of a clip are switched without a gap, rated
// from 0 to 100 in an order drawn for each listener, and given to download as JSON.
"use strict";

const test = JSON.parse(document.getElementById("test").textContent);
const stage = document.getElementById("stage");
const context = new AudioContext();
const started = new Date();
const done = [];
let order = shuffled(test.trials);
let trial = null;
let playing = null;
let saved = false;

function shuffled(items) {
  const mixed = [...items];
  for (let last = mixed.length - 1; last > 0; last--) {
    const [draw] = crypto.getRandomValues(new Uint32Array(1));
    const other = draw % (last + 1);
    [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
  }
  return mixed;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Sound: one source at a time, from where the last one was, round and round.

async function decode(sound) {
  const bytes = Uint8Array.from(atob(sound.data), (letter) => letter.charCodeAt(0));
  return context.decodeAudioData(bytes.buffer);
}

function position() {
  if (!playing) return 0;
  return (context.currentTime - playing.since) % playing.source.buffer.duration;
}

function stop() {
  if (!playing) return;
  playing.source.stop();
  playing = null;
  mark();
}

async function play(key) {
  const offset = position();
  await context.resume();
  if (playing) playing.source.stop();
  const source = new AudioBufferSourceNode(context, { buffer: trial.buffers[key], loop: true });
  source.connect(context.destination);
  source.start(0, offset % source.buffer.duration);
  playing = { key, source, since: context.currentTime - offset };
  trial.plays[key] = (trial.plays[key] || 0) + 1;
  mark();
}

function mark() {
  for (const button of stage.querySelectorAll("button[data-key]")) {
    button.setAttribute("aria-pressed", String(Boolean(playing && playing.key === button.dataset.key)));
  }
  const next = document.getElementById("next");
  if (next) next.disabled = !complete();
}

// "open" is the reference that is named; the hidden one is rated among the others.
function complete() {
  return trial.rated.size === trial.sounds.length && trial.sounds.every((sound) => trial.plays[sound.name]);
}

// Screens.

function welcome() {
  const name = element("input", { type: "text", id: "listener", autocomplete: "off" });
  const begin = element("button", { className: "main", id: "begin", textContent: "Begin" });
  begin.addEventListener("click", async () => {
    trial = null;
    test.listener = name.value.trim() || `listener ${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    await context.resume();
    show(0);
  });
  const keys = element("p", { className: "note" });
  keys.innerHTML =
    "Keys: <kbd>R</kbd> plays the reference, <kbd>1</kbd> to <kbd>9</kbd> play and choose a version, " +
    "<kbd>&larr;</kbd> <kbd>&rarr;</kbd> and <kbd>Page&nbsp;Up</kbd> <kbd>Page&nbsp;Down</kbd> rate it, " +
    "<kbd>Space</kbd> stops, <kbd>N</kbd> continues.";
  stage.replaceChildren(
    element("header", {}, element("h1", { textContent: test.title })),
    element(
      "section",
      { className: "card", style: "margin-top:16px" },
      element("p", {
        style: "margin-top:0",
        textContent:
          `You will hear ${test.trials.length} clips. Each has a reference and several versions of it, ` +
          "in random order. Rate how close each version sounds to the reference: 100 is no difference " +
          "that you can hear. One of the versions is the reference itself, and should get 100.",
      }),
      element("p", {
        textContent:
          "Press Reference or a letter to play it; you can switch while it plays, as often as you like. " +
          "Move the slider beside a letter to rate that version.",
      }),
      element("p", {
        textContent:
          "Use headphones in a quiet room. Set the volume with the first clip and leave it. At the end you " +
          "download a small file and send it to the person who asked you. Keep this page open until then: " +
          "nothing is stored or sent before.",
      }),
      keys,
      element("label", { htmlFor: "listener", textContent: "Your name or a pseudonym (it goes into the results)" }),
      name,
      element("div", { className: "bar" }, begin),
    ),
  );
  name.focus();
}

async function show(index) {
  stop();
  const item = order[index];
  stage.replaceChildren(element("p", { textContent: "Loading ..." }));
  const sounds = shuffled(item.sounds);
  const { clip, domain, systems } = item;
  trial = { index, clip, domain, systems, sounds, buffers: {}, plays: {}, ratings: {}, rated: new Set(), since: Date.now() };
  for (const sound of sounds) trial.buffers[sound.name] = await decode(sound);
  trial.buffers.open = trial.buffers.reference;
  trial.ready = true;
  const reference = element("button", { id: "reference", textContent: "Reference (R)" });
  reference.dataset.key = "open";
  reference.addEventListener("click", () => play("open"));
  const halt = element("button", { textContent: "Stop (Space)" });
  halt.addEventListener("click", stop);
  const last = index === order.length - 1;
  const next = element("button", { className: "main", id: "next", disabled: true, textContent: last ? "Finish (N)" : "Next (N)" });
  next.addEventListener("click", goOn);
  const words = ["Bad", "Poor", "Fair", "Good", "Excellent"].map((word) => element("span", { textContent: word }));
  stage.replaceChildren(
    element(
      "header",
      {},
      element("h1", { textContent: `Clip ${index + 1} of ${order.length}` }),
      element("p", { textContent: "How close is each version to the reference?" }),
    ),
    element("progress", { max: order.length, value: index, ariaLabel: "Progress" }),
    element(
      "section",
      { className: "card", style: "margin-top:12px" },
      element("div", { className: "bar", style: "margin-top:0" }, reference, halt),
      element("div", { className: "scale", ariaHidden: "true" }, element("span"), element("div", {}, ...words), element("span")),
      element("div", { className: "rows" }, ...sounds.map(row)),
      element(
        "div",
        { className: "bar" },
        element("span", { className: "note grow", textContent: "Play and rate every version to go on." }),
        next,
      ),
    ),
  );
  reference.focus();
}

function row(sound, place) {
  const letter = String.fromCharCode(65 + place);
  const label = place < 9 ? `${letter} (${place + 1})` : letter;
  const button = element("button", { textContent: label, ariaLabel: `Play version ${letter}` });
  button.dataset.key = sound.name;
  const slider = element("input", { type: "range", min: 0, max: 100, step: 1, value: 50, ariaLabel: `Rating of version ${letter}` });
  const output = element("output", { textContent: "\u2013" });
  const line = element("div", { className: "rate unrated" }, button, slider, output);
  const rate = () => {
    trial.ratings[sound.name] = Number(slider.value);
    trial.rated.add(sound.name);
    output.textContent = slider.value;
    line.classList.remove("unrated");
    mark();
  };
  button.addEventListener("click", () => play(sound.name));
  slider.addEventListener("input", rate);
  // A click on the middle changes nothing, and yet it is a rating.
  slider.addEventListener("change", rate);
  slider.addEventListener("pointerup", rate);
  return line;
}

function goOn() {
  if (!complete()) return;
  stop();
  done.push({
    clip: trial.clip,
    domain: trial.domain,
    systems: trial.systems,
    order: trial.sounds.map((sound) => sound.name),
    ratings: trial.ratings,
    plays: trial.plays,
    seconds: Math.round((Date.now() - trial.since) / 1000),
  });
  if (trial.index + 1 < order.length) show(trial.index + 1);
  else finish();
}

function finish() {
  trial = null;
  const results = {
    format: "moss-audio listening 1",
    test: test.test,
    title: test.title,
    listener: test.listener,
    started: started.toISOString(),
    finished: new Date().toISOString(),
    trials: done,
  };
  const content = new Blob([JSON.stringify(results, null, 1)], { type: "application/json" });
  const plain = test.listener.replace(/[^A-Za-z0-9-]+/g, "_");
  const link = element("a", {
    id: "download",
    href: URL.createObjectURL(content),
    download: `listening-${test.test.slice(0, 6)}-${plain}.json`,
    textContent: "Download the results",
  });
  link.addEventListener("click", () => { saved = true; });
  window.results = results;
  stage.replaceChildren(
    element("header", {}, element("h1", { textContent: "Thank you" })),
    element(
      "section",
      { className: "card", style: "margin-top:16px" },
      element("p", { style: "margin-top:0", textContent: "Save your results and send the file to the person who asked you." }),
      link,
      element("p", { className: "note", textContent: `${link.download} is then in your downloads.` }),
    ),
  );
  link.focus();
}

// Keys.

document.addEventListener("keydown", (event) => {
  if (!trial || !trial.ready || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  const place = Number(key) - 1;
  if (key === "r") play("open");
  else if (key === " ") stop();
  else if (key === "n") goOn();
  else if (place >= 0 && place < trial.sounds.length) choose(place);
  else return;
  event.preventDefault();
});

function choose(place) {
  play(trial.sounds[place].name);
  stage.querySelectorAll(".rate input")[place].focus();
}

window.addEventListener("beforeunload", (event) => {
  if (done.length && !saved) event.preventDefault();
});

welcome();
