// The result section: the segments of one transcription, its player, and the copies.

import { asSrt, asText, clock, copy } from "./transcript.js";

const element = (id) => document.getElementById(id);

let shown = { segments: [], text: "" };
let playing = null; // the address of the audio in the player

/** Empties the section for the next transcription. */
export function begin(name, text) {
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

/** Adds a segment with its line; returns the line. */
export function add(segment) {
  const line = makeLine(segment.start);
  keep(segment, line);
  line.querySelector("span").textContent = segment.text;
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
  time.addEventListener("click", () => {
    element("player").currentTime = start;
    element("player").play();
  });
  line.append(time, document.createElement("span"));
  return line;
}

/** Ends the progress; `text` is the whole text, if it is not that of the segments. */
export function end(text = "") {
  shown.text = text;
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

async function copied(text, what, fail) {
  try {
    await copy(text);
    element("copied").textContent = `${what} copied.`;
  } catch (error) {
    fail(`Copying did not work: ${error.message}. The text can still be marked and copied by hand.`);
  }
}

/** Connects the copy buttons; `fail(sentence)` shows why a copy did not work. */
export function offerCopies(fail) {
  element("copy-text").addEventListener("click", () =>
    copied(shown.text || asText(shown.segments), "Text", fail),
  );
  element("copy-srt").addEventListener("click", () => copied(asSrt(shown.segments), "SRT", fail));
}
