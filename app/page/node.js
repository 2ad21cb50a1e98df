// Requests to the node. Addresses are relative because the node may be behind a proxy.

import { Failure } from "./failures.js";
import { keep } from "./own_requests.js";

const KEY = "node-whisper token";
const CUE_COLUMNS = "42"; // has the node divide segments into cues of two lines and 7 s

let token = null;
try {
  token = sessionStorage.getItem(KEY); // for this tab only, until it is closed
} catch {
  // Storage may be forbidden; the token then lasts as long as the page.
}

export function setToken(value) {
  token = value.trim();
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // as above
  }
}

export function hasToken() {
  return token !== null;
}

/** Returns the WebSocket subprotocols of a live session. A page cannot set headers there, so the token
 * is one of them, in an alphabet that a subprotocol may have. */
export function protocols() {
  if (token === null) return ["realtime"];
  const letters = btoa(String.fromCharCode(...new TextEncoder().encode(token)));
  const url = letters.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return ["realtime", `node-whisper-token.${url}`];
}

async function ask(address, { name = null, ...options } = {}) {
  // A token has only printable ASCII. With other characters fetch would fail as if the node were
  // unreachable.
  if (token !== null && !/^[!-~]+$/.test(token)) throw new Failure("unauthorized", "", 401);
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  let response;
  try {
    response = await fetch(address, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("unreachable");
  }
  if (name !== null) keep(response.headers.get("X-Request-Id"), name);
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // This is not the node's JSON: a proxy answered.
  }
  return fromNode(error, response.status);
}

function fromNode(error, status = 0) {
  return new Failure(error.code ?? "", error.message ?? "", status);
}

/** Returns the description of the node's routes. Throws Failure. */
export async function description() {
  return (await ask("openapi.json")).json();
}

/** Returns the node's status. Throws Failure. */
export async function status() {
  return (await ask("status")).json();
}

/** Sends a file, which the page calls `name`. Yields `{segment: {start, end, text, lines, language,
 * words}}` as each is ready, seconds from the beginning, and at last `{done: {text, ...}}`. Throws
 * Failure; AbortError if `signal` aborted. */
export async function* transcribe(file, name, { language, prompt, words, translate }, signal) {
  const form = new FormData();
  form.append("response_format", "json");
  form.append("stream", "true");
  if (language) form.append("language", language);
  if (prompt) form.append("prompt", prompt);
  if (words) form.append("timestamp_granularities[]", "word");
  form.append("max_line_width", CUE_COLUMNS);
  form.append("file", file, file.name);
  const route = `v1/audio/${translate ? "translations" : "transcriptions"}`;
  const response = await ask(route, { name, method: "POST", body: form, signal });

  for await (const event of events(response.body)) {
    if (event.error) throw fromNode(event.error);
    if (event.type === "transcript.text.delta") {
      const { start, end, delta, lines, language: spoken, words: found } = event;
      yield { segment: { start, end, text: delta.trim(), lines, language: spoken, words: found } };
    } else if (event.type === "transcript.text.done") {
      yield { done: event };
      return;
    }
  }
  throw new Failure("broken_off");
}

/** Yields the JSON objects of a stream of server-sent events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("broken_off");
    }
    if (part.done) return;
    const blocks = (left + part.value).split(/\r?\n\r?\n/);
    left = blocks.pop();
    for (const block of blocks) {
      const data = block
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart())
        .join("\n");
      if (data.startsWith("{")) yield JSON.parse(data);
    }
  }
}
