// The table of the last requests: how long they took, or why they failed.

import { adviceFor } from "./failures.js";
import { nameOf } from "./own_requests.js";
import { clock } from "./transcript.js";

const ROWS = 8;
const COLUMNS = 4;
const SVG = "http://www.w3.org/2000/svg";

const element = (id) => document.getElementById(id);

let last = "";

/** Shows the latest of the node's requests, which are oldest first. */
export function showRecent(requests) {
  const recent = requests.slice(-ROWS).reverse();
  // Their ages change with every report. Unchanged rows stay, so that a person can select their text.
  const now = JSON.stringify(recent.map(({ age_seconds: _, ...rest }) => ({ ...rest, name: nameOf(rest.id) })));
  if (now === last) return;
  last = now;
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
    line.append(failed(one));
    return line;
  }
  const { audio_seconds: audio, queue_seconds: waited = 0, processing_seconds: worked } = one;
  line.append(
    cell(clock(audio, 0)),
    cell(bar(waited, worked, longest), "bar"),
    cell(taken(one).toFixed(2), "number"),
    cell(worked > 0 ? `${(audio / worked).toFixed(1)} ×` : "–", "number"),
  );
  const name = nameOf(one.id);
  if (name) line.title = name;
  return line;
}

/** The file if it was sent from here, the code, the node's message, and the next step. */
function failed({ id, outcome, message }) {
  const made = cell("", "failed");
  made.colSpan = COLUMNS;
  const head = document.createElement("strong");
  const name = nameOf(id);
  head.textContent = name ? `${name}: ${outcome}` : outcome;
  const advice = adviceFor(outcome, name !== undefined);
  const said = message ? ` The node says: ${message}${/[.!?]$/.test(message) ? "" : "."}` : "";
  made.append(head, ` ${advice}${said}`);
  return made;
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
