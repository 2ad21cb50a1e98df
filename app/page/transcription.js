// One transcription: sends the audio and shows the result as it comes.

import { transcribe } from "./node.js";
import { languageName } from "./options.js";
import * as result from "./result.js";
import { clock } from "./transcript.js";

/** Sends a file, `seconds` long if that is known. Returns the whole text, and the facts about it that
 * a saved JSON file has. Throws what `transcribe` throws. */
export async function transcribeAndShow({ file, seconds }, name, options, signal) {
  result.step(`Sending ${size(file.size)}…`);
  const languages = new Set();
  let text = "";
  let about = {};
  for await (const { segment, done } of transcribe(file, name, options, signal)) {
    if (segment) {
      result.add(segment, options.translate ? "en" : segment.language);
      result.step(`Transcribing, at ${clock(segment.end, 0)}${seconds ? ` of ${clock(seconds, 0)}` : ""}`);
      if (seconds) result.progress(segment.end / seconds);
      if (segment.language) languages.add(segment.language);
    } else {
      text = done.text.trim();
      const { model, language, duration } = done;
      about = { file: name, task: options.translate ? "translate" : "transcribe", model, language, duration };
      if (language && languages.size === 0) languages.add(language);
      result.step("");
      result.summary(result.isEmpty() ? "No speech was recognised." : `${spoken(languages)}${speed(done)}`);
    }
  }
  return { text, about };
}

function spoken(languages) {
  const names = [...languages].map(languageName);
  return names.length === 0 ? "" : `Language: ${names.join(", ")}. `;
}

function speed({ duration: audio, processing_seconds: worked, queue_seconds: waited }) {
  if (!(worked > 0)) return "";
  const times = [`${audio.toFixed(1)} s of audio in ${worked.toFixed(1)} s`];
  times.push(`${(audio / worked).toFixed(1)} times as fast as speech`);
  if (waited >= 0.1) times.push(`after ${waited.toFixed(1)} s in the queue`);
  return `${times.join(", ")}.`;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
