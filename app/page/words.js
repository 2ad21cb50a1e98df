// The words of a segment with their times.

import { clock } from "./transcript.js";

/** Fills `holder` with the segment's text. Each word that has times is a button, which calls
 * `play(seconds)`; without `play` only its title shows the times. The arrow keys go from word to
 * word, so that the Tab key passes a segment at once. */
export function showWords(holder, { text, words }, play) {
  let at = 0;
  const parts = [];
  for (const { word, start, end } of words) {
    const spoken = word.trim();
    const found = text.indexOf(spoken, at);
    if (spoken === "" || found < 0) continue; // the text counts, and its words only if they are in it
    parts.push(text.slice(at, found), piece(spoken, start, end, play));
    at = found + spoken.length;
  }
  holder.replaceChildren(...parts, text.slice(at));
  const buttons = [...holder.querySelectorAll("button")];
  buttons.forEach((button, i) => {
    button.tabIndex = i === 0 ? 0 : -1;
    button.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      buttons[i + step]?.focus();
    });
  });
}

function piece(spoken, start, end, play) {
  const made = document.createElement(play ? "button" : "span");
  made.className = "word";
  made.textContent = spoken;
  made.title = `${clock(start, 2)} to ${clock(end, 2)}`;
  if (play) {
    made.type = "button";
    made.addEventListener("click", () => play(start));
  }
  return made;
}
