// Formats segments as text. A segment is {start, end, text, lines}, times in seconds.

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

export function asText(segments) {
  return segments.map((segment) => segment.text).join(" ");
}

export function asSrt(segments) {
  return segments
    .map(({ start, end, text, lines }, i) => {
      const shown = (lines ?? [text]).join("\n");
      return `${i + 1}\n${stamp(start)} --> ${stamp(end)}\n${shown}\n`;
    })
    .join("\n");
}

/** Formats a time for SubRip: 00:00:07,420. */
function stamp(seconds) {
  const units = Math.round(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.floor(units / 1000);
  const time = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60].map(two).join(":");
  return `${time},${String(units % 1000).padStart(3, "0")}`;
}

/** Copies to the clipboard, also over plain HTTP, where browsers offer no clipboard API. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  const focused = document.activeElement;
  area.value = text;
  area.readOnly = true;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  if (!done) throw new Error("this browser does not let the page copy");
  return undefined;
}
