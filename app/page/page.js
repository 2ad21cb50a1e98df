// The page's main script. The page is idle, recording, showing live captions, or transcribing a file.

import { watch } from "./activity.js";
import { prepare } from "./audio.js";
import { available, Captions } from "./captions.js";
import { curlLine } from "./curl.js";
import { onDrop } from "./drop.js";
import { explain, explainMicrophone, Failure, noMicrophone } from "./failures.js";
import { hasToken } from "./node.js";
import { offer, options } from "./options.js";
import { Recorder } from "./recorder.js";
import * as result from "./result.js";
import { askForToken, isAskingForToken, onToken } from "./token.js";
import { clock } from "./transcript.js";
import { transcribeAndShow } from "./transcription.js";

const element = (id) => document.getElementById(id);

let recorder = null; // while recording
let abort = null; // an AbortController, while working
let captions = null; // during live captions

// States.

function update() {
  const recording = recorder !== null;
  const live = captions !== null;
  const working = abort !== null;
  const held = document.activeElement;
  element("record").disabled = working || live || noMicrophone() !== null;
  element("live").disabled = working || recording || noMicrophone() !== null;
  element("live").setAttribute("aria-pressed", String(live));
  element("live-text").textContent = live ? "Stop" : "Live captions";
  element("record").setAttribute("aria-pressed", String(recording));
  element("record-text").textContent = recording ? "Stop" : "Record";
  element("file").disabled = recording || live || working;
  element("choose").classList.toggle("off", recording || live || working);
  element("cancel").hidden = !recording && !working;
  element("cancel").textContent = recording ? "Discard" : "Cancel";
  element("recording").hidden = !recording && !live;
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
    if (abort === null && captions === null) recorder = started;
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
    await work(stopped.stop(), stamped("recording"), "Recording");
  } catch (error) {
    fail(explain(error));
  }
}

// Live captions.

async function startCaptions() {
  if (wanted) return;
  wanted = true;
  forgive();
  result.begin("Live captions", "Listening…", stamped("captions"));
  element("progress").hidden = true;
  try {
    const started = await Captions.start(options(), showLevel, stopCaptions, loseCaptions);
    if (abort === null && recorder === null) captions = started;
    else started.discard();
  } catch (error) {
    wanted = false;
    await cannotCaption(error);
    return;
  }
  wanted = false;
  update();
}

async function cannotCaption(error) {
  result.step("");
  element("result").hidden = true;
  if (error.status === 401) {
    askForToken(startCaptions);
  } else if (error.code === "no_live") {
    // Something between this page and the node does not pass WebSockets.
    element("live").hidden = true;
    await startRecording();
    fail(explain(error));
  } else {
    fail(error instanceof Failure ? explain(error) : explainMicrophone(error));
  }
  update();
}

async function stopCaptions() {
  const stopped = captions;
  if (stopped === null) return;
  captions = null;
  abort = new AbortController(); // nothing else begins before the last words are here
  abort.signal.addEventListener("abort", () => stopped.discard());
  result.step("Waiting for the last words…");
  update();
  await stopped.stop();
  abort = null;
  endCaptions();
}

function loseCaptions(error) {
  fail(explain(error));
  if (captions === null) return;
  captions.discard();
  captions = null;
  endCaptions();
}

function endCaptions() {
  result.step("");
  result.end();
  if (result.isEmpty()) result.summary("No speech was recognised.");
  update();
  look();
}

// Transcribing.

/** Transcribes a file, or the promise of one, and shows the result. `name` is that of the file,
 * `title` what the page shows. */
async function work(promised, name, title = name) {
  abort = new AbortController();
  const { signal } = abort;
  forgive();
  const asked = options();
  result.begin(title, "Preparing the audio…", name);
  update();
  let file;
  let found = {};
  try {
    file = await promised;
    if (file.size === 0) throw new Failure("empty_file");
    const ready = await prepare(file);
    signal.throwIfAborted();
    if (ready.seconds !== null) result.play(ready.file);
    found = await transcribeAndShow(ready, name, asked, signal);
    result.showCurl(curlLine(location, name, asked, hasToken()));
  } catch (error) {
    if (error.name === "AbortError") {
      result.step("Cancelled.");
    } else if (error.status === 401) {
      result.step("Waiting for the token.");
      askForToken(() => work(file, name, title));
    } else {
      result.step("");
      fail(`${title}: ${explain(error)}`);
    }
    element("result").hidden = result.isEmpty() && error.status !== 401;
  } finally {
    abort = null;
    result.end(found);
    update();
    look();
  }
}

/** Returns a name for a file that has none, with the local time. */
function stamped(kind) {
  const two = (number) => String(number).padStart(2, "0");
  const now = new Date();
  const day = [now.getFullYear(), now.getMonth() + 1, now.getDate()].map(two).join("-");
  return `${kind} ${day} ${two(now.getHours())}-${two(now.getMinutes())}-${two(now.getSeconds())}`;
}

function isIdle() {
  return recorder === null && captions === null && abort === null;
}

function take(file) {
  if (isIdle()) work(Promise.resolve(file), file.name);
}

// Events.

element("record").addEventListener("click", () => (recorder ? stopRecording() : startRecording()));

element("live").addEventListener("click", () => (captions ? stopCaptions() : startCaptions()));

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

onDrop(
  isIdle,
  (file) => (file ? take(file) : fail(explain(new Failure("no_file")))),
);

result.offerCopies(fail);
result.offerDownloads();

// Begin.

const reason = noMicrophone();
if (reason !== null) {
  element("no-microphone").textContent = reason;
  element("no-microphone").hidden = false;
}
element("live").hidden = !available();
update();

const look = watch(
  offer,
  () => isAskingForToken() || abort !== null || askForToken(null),
);
onToken(look);
