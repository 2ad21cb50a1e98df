// The activity section: state, queue, and the last requests.

import { status } from "./node.js";
import { showRecent } from "./recent.js";

const EVERY = 2000; // ms between two polls while the page is visible

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
  showRecent(seen.recent);
}
