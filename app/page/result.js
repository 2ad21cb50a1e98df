// The result section: the segments of one transcription, its player, copies, and files to save.

import { copy } from "./clipboard.js";
import { download } from "./download.js";
import { asSrt, asText, clock } from "./transcript.js";
import { showWords } from "./words.js";

const element = (id) => document.getElementById(id);

let shown = { name: "", segments: [], text: "", about: {} };
let playing = null; // the address of the audio in the player

/** Empties the section for the next transcription. Saved files are named after `name`. */
export function begin(title, text, name) {
  shown = { name, segments: [], text: "", about: {} };
  element("source-name").textContent = title;
  element("segments").replaceChildren();
  element("summary").textContent = "";
  element("copied").textContent = "";
  element("copied-curl").textContent = "";
  element("copies").hidden = true;
  element("request").hidden = true;
  element("request").open = false;
  element("player").hidden = true;
  element("progress").removeAttribute("value");
  element("progress").hidden = false;
  element("result").hidden = false;
  step(text);
}

/** Says what happens at present; nothing if `text` is empty. */
export function step(text) {
  element("progress-line").hidden = text === "";
  element("step").textContent = text;
}

/** Shows how much is done, 0 to 1. */
export function progress(share) {
  element("progress").value = Math.min(1, share);
}

/** Adds a segment with its line; returns the line. `language` is the code of its text, if known. */
export function add(segment, language) {
  const line = makeLine(segment.start);
  keep(segment, line);
  const holder = line.querySelector("span");
  if (language) holder.lang = language;
  if (segment.words) showWords(holder, segment, element("player").hidden ? null : playFrom);
  else holder.textContent = segment.text;
  element("segments").append(line);
  return line;
}

/** Adds an empty line at the end, for words that are still spoken; `keep` makes it a segment. */
export function addOpen(start) {
  const line = makeLine(start);
  element("segments").append(line);
  return line;
}

/** Makes `line` the line of a segment that is final. */
export function keep(segment, line) {
  shown.segments.push(segment);
  const time = line.querySelector("button");
  time.textContent = clock(segment.start);
  time.title = `${clock(segment.start)} to ${clock(segment.end)}: play from here`;
}

function makeLine(start) {
  const line = document.createElement("li");
  const time = document.createElement("button");
  time.type = "button";
  time.textContent = clock(start);
  time.disabled = element("player").hidden;
  time.addEventListener("click", () => playFrom(start));
  line.append(time, document.createElement("span"));
  return line;
}

function playFrom(seconds) {
  element("player").currentTime = seconds;
  element("player").play().catch(() => {}); // a pause or another word may come first
}

/** Shows the command of curl for the same request. */
export function showCurl(line) {
  element("curl").textContent = line;
  element("request").hidden = false;
}

/** Ends the progress; `text` is the whole text, if it is not that of the segments, and `about` has
 * more fields for the saved JSON. */
export function end({ text = "", about = {} } = {}) {
  Object.assign(shown, { text, about });
  element("progress").hidden = true;
  element("copies").hidden = shown.segments.length === 0;
}

export function isEmpty() {
  return shown.segments.length === 0;
}

export function summary(text) {
  element("summary").textContent = text;
}

/** Offers the audio in the player. */
export function play(file) {
  if (playing !== null) URL.revokeObjectURL(playing);
  playing = URL.createObjectURL(file);
  element("player").src = playing;
  element("player").hidden = false;
}

/** Connects the copy buttons; `fail(sentence)` shows why a copy did not work. */
export function offerCopies(fail) {
  const offerCopy = (button, said, what, text) =>
    element(button).addEventListener("click", async () => {
      try {
        await copy(text());
        element(said).textContent = `${what} copied.`;
      } catch (error) {
        fail(`Copying did not work: ${error.message}. Select the text and copy it by hand.`);
      }
    });
  offerCopy("copy-text", "copied", "Text", () => asText(shown));
  offerCopy("copy-srt", "copied", "SRT", () => asSrt(shown));
  offerCopy("copy-curl", "copied-curl", "Command", () => element("curl").textContent);
}

/** Connects the buttons that save the transcript. */
export function offerDownloads() {
  for (const button of element("downloads").querySelectorAll("button")) {
    button.addEventListener("click", () => download(button.value, shown.name, shown));
  }
}
