// Formats a transcript. A segment is {start, end, text, lines, words}, times in seconds; `lines` and
// `words` ({word, start, end}) may be missing.

/** 7.42 -> "0:07.4"; 3725 -> "1:02:05.0". */
export function clock(seconds, digits = 1) {
  const scale = 10 ** digits;
  const units = Math.round(seconds * scale);
  const whole = Math.floor(units / scale);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const fraction = digits ? `.${String(units % scale).padStart(digits, "0")}` : "";
  const rest = `${String(whole % 60).padStart(2, "0")}${fraction}`;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export function asText({ text, segments }) {
  return text || segments.map((segment) => segment.text).join(" ");
}

export function asSrt({ segments }) {
  return shown(segments)
    .map(({ start, end, lines }, i) => `${i + 1}\n${stamp(start, ",")} --> ${stamp(end, ",")}\n${lines}\n\n`)
    .join("");
}

export function asVtt({ segments }) {
  const cues = shown(segments).map(
    ({ start, end, lines }) => `${stamp(start, ".")} --> ${stamp(end, ".")}\n${escaped(lines)}\n\n`,
  );
  return `WEBVTT\n\n${cues.join("")}`;
}

/** The fields of `verbose_json`, as far as the page knows them. */
export function asJson({ text, segments, about }) {
  const fields = { ...about, text: asText({ text, segments }), segments };
  return `${JSON.stringify(fields, null, 2)}\n`;
}

/** Returns the cues that have text, with their lines as one string. An empty line would end a cue. */
function shown(segments) {
  return segments
    .map(({ start, end, text, lines }) => ({ start, end, lines: (lines ?? [text]).map(joined).filter(Boolean).join("\n") }))
    .filter((cue) => cue.lines);
}

function joined(line) {
  return line.split(/\s+/).filter(Boolean).join(" ");
}

/** WebVTT has markup. */
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Formats a time as in subtitles: 00:00:07,420. */
function stamp(seconds, point) {
  const units = Math.max(0, Math.round(seconds * 1000));
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.floor(units / 1000);
  const time = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60].map(two).join(":");
  return `${time}${point}${String(units % 1000).padStart(3, "0")}`;
}
