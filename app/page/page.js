// The page's main script. The page is idle, recording, or transcribing a file.

import { watch } from "./activity.js";
import { prepare } from "./audio.js";
import { explain, explainMicrophone, Failure, noMicrophone } from "./failures.js";
import { hasToken, setToken, transcribe } from "./node.js";
import { Recorder } from "./recorder.js";
import { asSrt, asText, clock, copy } from "./transcript.js";

const element = (id) => document.getElementById(id);

let recorder = null; // while recording
let abort = null; // an AbortController, while working
let locked = null; // the action that waits for a token
let shown = { segments: [], text: "" };

// States.

function update() {
  const recording = recorder !== null;
  const working = abort !== null;
  const held = document.activeElement;
  element("record").disabled = working || noMicrophone() !== null;
  element("record").setAttribute("aria-pressed", String(recording));
  element("record-text").textContent = recording ? "Stop" : "Record";
  element("file").disabled = recording || working;
  element("choose").classList.toggle("off", recording || working);
  element("cancel").hidden = !recording && !working;
  element("cancel").textContent = recording ? "Discard" : "Cancel";
  element("recording").hidden = !recording;
  // The keyboard focus must not stay on a hidden button.
  if (working && (held === element("record") || held === element("file"))) element("cancel").focus();
  if (!recording && !working && held === element("cancel")) {
    (element("record").disabled ? element("file") : element("record")).focus();
  }
}

function fail(sentence) {
  element("failure").textContent = sentence;
  element("failure").hidden = false;
}

function forgive() {
  element("failure").hidden = true;
  element("failure").textContent = "";
}

// Recording.

let wanted = false; // true while the browser asks for permission to use the microphone

async function startRecording() {
  if (wanted) return;
  wanted = true;
  forgive();
  try {
    const started = await Recorder.start(showLevel, stopRecording);
    // The user may have chosen a file while the browser asked for permission.
    if (abort === null) recorder = started;
    else started.discard();
  } catch (error) {
    fail(explainMicrophone(error));
  }
  wanted = false;
  update();
}

function showLevel(level, seconds) {
  element("level-bar").setAttribute("width", 100 * Math.sqrt(level)); // the square root makes quiet speech visible
  const time = clock(Math.floor(seconds), 0);
  if (element("elapsed").textContent !== time) element("elapsed").textContent = time;
}

async function stopRecording() {
  const stopped = recorder;
  if (stopped === null) return;
  recorder = null;
  try {
    await work(stopped.stop(), "Recording");
  } catch (error) {
    fail(explain(error));
  }
}

// Transcribing.

/** Transcribes a file, or the promise of one, and shows the result. */
async function work(promised, name) {
  abort = new AbortController();
  const { signal } = abort;
  forgive();
  begin(name);
  update();
  let file;
  try {
    file = await promised;
    if (file.size === 0) throw new Failure("empty_file");
    const ready = await prepare(file);
    signal.throwIfAborted();
    if (ready.seconds !== null) play(ready.file);
    await listen(ready, signal);
  } catch (error) {
    if (error.name === "AbortError") {
      step("Cancelled.");
    } else if (error.status === 401) {
      step("Waiting for the token.");
      askForToken(() => work(file, name));
    } else {
      step("");
      fail(explain(error));
    }
    element("result").hidden = shown.segments.length === 0 && error.status !== 401;
  } finally {
    abort = null;
    element("progress").hidden = true;
    element("copies").hidden = shown.segments.length === 0;
    update();
    look();
  }
}

async function listen({ file, seconds }, signal) {
  step(`Sending ${size(file.size)}…`);
  const options = { language: element("language").value.trim(), prompt: element("prompt").value.trim() };
  for await (const { segment, done } of transcribe(file, options, signal)) {
    if (segment) {
      add(segment);
      step(`Transcribing, at ${clock(segment.end, 0)}${seconds ? ` of ${clock(seconds, 0)}` : ""}`);
      if (seconds) element("progress").value = Math.min(1, segment.end / seconds);
    } else {
      finish(done);
    }
  }
}

function begin(name) {
  shown = { segments: [], text: "" };
  element("source-name").textContent = name;
  element("segments").replaceChildren();
  element("summary").textContent = "";
  element("copied").textContent = "";
  element("copies").hidden = true;
  element("player").hidden = true;
  element("progress").removeAttribute("value");
  element("progress").hidden = false;
  element("result").hidden = false;
  step("Preparing the audio…");
}

function step(text) {
  element("progress-line").hidden = text === "";
  element("step").textContent = text;
}

function add(segment) {
  shown.segments.push(segment);
  const line = document.createElement("li");
  const time = document.createElement("button");
  const text = document.createElement("span");
  time.type = "button";
  time.textContent = clock(segment.start);
  time.title = `${clock(segment.start)} to ${clock(segment.end)}: play from here`;
  time.disabled = element("player").hidden;
  time.addEventListener("click", () => {
    element("player").currentTime = segment.start;
    element("player").play();
  });
  text.textContent = segment.text;
  line.append(time, text);
  element("segments").append(line);
}

function finish(done) {
  shown.text = done.text.trim();
  step("");
  if (shown.segments.length === 0) {
    element("summary").textContent = "No speech was recognised.";
    return;
  }
  const { duration: audio, processing_seconds: worked, queue_seconds: waited } = done;
  if (!(worked > 0)) return;
  const times = [`${audio.toFixed(1)} s of audio in ${worked.toFixed(1)} s`];
  times.push(`${(audio / worked).toFixed(1)} times as fast as speech`);
  if (waited >= 0.1) times.push(`after ${waited.toFixed(1)} s in the queue`);
  element("summary").textContent = `${times.join(", ")}.`;
}

let playing = null;

function play(file) {
  if (playing !== null) URL.revokeObjectURL(playing);
  playing = URL.createObjectURL(file);
  element("player").src = playing;
  element("player").hidden = false;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function take(file) {
  if (recorder === null && abort === null) work(Promise.resolve(file), file.name);
}

// The token.

function askForToken(then) {
  locked = then;
  element("token-text").textContent = hasToken()
    ? "The node rejected the token. Enter another one:"
    : "This node requires a token:";
  element("token-form").hidden = false;
  element("token").focus();
}

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(element("token").value);
  element("token").value = "";
  element("token-form").hidden = true;
  const then = locked;
  locked = null;
  if (then) then();
  else look();
});

// Events.

element("record").addEventListener("click", () => (recorder ? stopRecording() : startRecording()));

element("cancel").addEventListener("click", () => {
  if (recorder) {
    recorder.discard();
    recorder = null;
    update();
  } else {
    abort?.abort();
  }
});

element("file").addEventListener("change", () => {
  const [file] = element("file").files;
  if (file) take(file);
  element("file").value = ""; // so that the same file can be chosen again
});

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  element("drop").hidden = recorder !== null || abort !== null;
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) element("drop").hidden = true;
});
addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  element("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) take(file);
  else fail(explain(new Failure("no_file")));
});

async function copied(text, what) {
  try {
    await copy(text);
    element("copied").textContent = `${what} copied.`;
  } catch (error) {
    fail(`Copying did not work: ${error.message}. The text can still be marked and copied by hand.`);
  }
}

element("copy-text").addEventListener("click", () =>
  copied(shown.text || asText(shown.segments), "Text"),
);
element("copy-srt").addEventListener("click", () => copied(asSrt(shown.segments), "SRT"));

// Begin.

let offered = "";

/** Only where there is a choice. */
function offerLanguages(codes) {
  if (codes.join() === offered) return;
  offered = codes.join();
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  const options = codes
    .map((code) => new Option(names.of(code), code))
    .sort((one, other) => one.text.localeCompare(other.text));
  const own = [...element("language").options].slice(0, 3);
  const chosen = element("language").value;
  element("language").replaceChildren(...own, ...options);
  element("language").value = codes.includes(chosen) ? chosen : "";
  element("language-field").hidden = codes.length < 2;
}

const reason = noMicrophone();
if (reason !== null) {
  element("no-microphone").textContent = reason;
  element("no-microphone").hidden = false;
}
update();

const look = watch(
  (seen) => offerLanguages(seen.languages),
  () => element("token-form").hidden && abort === null && askForToken(null),
);
