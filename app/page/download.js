// Files that the page makes of a transcript, for the browser to save.

import { asJson, asSrt, asText, asVtt } from "./transcript.js";

const KINDS = {
  srt: { type: "application/x-subrip", format: asSrt },
  vtt: { type: "text/vtt", format: asVtt },
  txt: { type: "text/plain", format: (transcript) => `${asText(transcript)}\n` },
  json: { type: "application/json", format: asJson },
};

/** Saves a transcript as `kind`: srt, vtt, txt or json. The file is named after the recording. */
export function download(kind, name, transcript) {
  const { type, format } = KINDS[kind];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([format(transcript)], { type: `${type};charset=utf-8` }));
  link.download = `${name.replace(/\.[^.]*$/, "") || name}.${kind}`;
  link.click();
  // The browser may begin to read a while after the click.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
