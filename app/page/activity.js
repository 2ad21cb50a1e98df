// The activity section: state, queue, and a chart of how long the last requests took.

import { status } from "./node.js";
import { clock } from "./transcript.js";

const EVERY = 2000; // ms between two polls while the page is visible
const ROWS = 8;
const SVG = "http://www.w3.org/2000/svg";

const element = (id) => document.getElementById(id);

/** Looks now and then for as long as the page is open. `onStatus(seen)` hears all the node said,
 * `onUnauthorized()` that it says nothing without another token. Returns a function that looks at
 * once. */
export function watch(onStatus, onUnauthorized) {
  let timer = 0;
  const look = async () => {
    let seen = null;
    try {
      seen = await status();
    } catch (error) {
      const locked = error.status === 401;
      lamp(locked ? "" : "gone", locked ? "Locked" : "Not reachable");
      if (locked) onUnauthorized();
    }
    element("activity").hidden = seen === null;
    if (seen !== null) {
      show(seen);
      onStatus(seen);
    }
    clearTimeout(timer); // this call may have come between two polls
    if (!document.hidden) timer = setTimeout(look, EVERY);
  };
  document.addEventListener("visibilitychange", () => document.hidden || look());
  look();
  return look;
}

function lamp(kind, text) {
  element("lamp").className = kind;
  // Updated only on a change, because screen readers announce every update.
  if (element("state-text").textContent !== text) element("state-text").textContent = text;
}

function show(seen) {
  const { unfinished, waiting } = seen.queue;
  const state = seen.draining ? "shutting down" : unfinished > 0 ? "busy" : "ready";
  lamp(seen.draining ? "gone" : state, `${seen.model}, ${state}`);
  element("queue").textContent =
    unfinished === 0
      ? "The queue is empty."
      : `${unfinished - waiting} at work, ${waiting} waiting, of at most ${seen.queue.size}.`;
  element("version").textContent = `node-whisper ${seen.version}`;
  const recent = seen.recent.slice(-ROWS).reverse();
  const longest = Math.max(0, ...recent.filter((one) => one.outcome === "ok").map(taken));
  element("rows").replaceChildren(...recent.map((one) => row(one, longest)));
  element("recent").hidden = recent.length === 0;
}

// A live session does not wait in the queue.
function taken({ queue_seconds: waited = 0, processing_seconds: worked }) {
  return waited + worked;
}

function row(one, longest) {
  const line = document.createElement("tr");
  if (one.outcome !== "ok") {
    const failed = cell(one.outcome.replaceAll("_", " "), "failed");
    failed.colSpan = 3;
    line.append(cell("–"), failed);
    return line;
  }
  const { audio_seconds: audio, queue_seconds: waited = 0, processing_seconds: worked } = one;
  line.append(
    cell(clock(audio, 0)),
    cell(bar(waited, worked, longest), "bar"),
    cell(taken(one).toFixed(2), "number"),
    cell(worked > 0 ? `${(audio / worked).toFixed(1)} ×` : "–", "number"),
  );
  return line;
}

function cell(content, kind = "") {
  const made = document.createElement("td");
  made.className = kind;
  made.append(content);
  return made;
}

/** Draws two bars on a common scale: seconds queued, then seconds processed. */
function bar(waited, worked, longest) {
  const scale = longest > 0 ? 100 / longest : 0;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 10");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute(
    "aria-label",
    `waited ${waited.toFixed(2)} seconds, worked ${worked.toFixed(2)} seconds`,
  );
  svg.append(stretch("waited", 0, waited * scale), stretch("worked", waited * scale, worked * scale));
  return svg;
}

function stretch(kind, x, width) {
  const rect = document.createElementNS(SVG, "rect");
  rect.setAttribute("class", kind);
  rect.setAttribute("x", x);
  rect.setAttribute("width", width);
  rect.setAttribute("height", 10);
  return rect;
}
