// Error messages of the page.

/** A request that the node rejected or that failed in transit. `code` is the node's error code. */
export class Failure extends Error {
  constructor(code, message = "", status = 0) {
    super(message || code);
    this.name = "Failure";
    this.code = code;
    this.detail = message;
    this.status = status;
  }
}

const BY_CODE = {
  unreachable: "The node cannot be reached. Is it still running, and this device still on its network?",
  broken_off: "The connection ended before the node had finished. The text below is incomplete; try again.",
  unauthorized: "The node rejected the token. Enter another one.",
  unsupported_media_type: "Neither this browser nor the node can read this file format. Convert the file, for example to FLAC or WAV.",
  bad_audio: "The file contains no audio that can be decoded. Try another file, or convert it to FLAC or WAV.",
  audio_too_long: "The recording is longer than this node accepts. Split it into parts.",
  too_large: "The file is larger than this node accepts. Split or compress it.",
  bad_field: "The node rejected one of the options. Change it and try again.",
  missing_field: "The request lacks a field that the node requires. Reload this page.",
  bad_header: "The request is not valid HTTP, or not of the form that the node reads. Correct the program that sent it.",
  model_not_found: "The node serves another model. Ask for its own, or for none.",
  busy: "The node is at capacity. Try again in a moment.",
  timeout: "The audio did not reach the node in time. The network may be slow; try again.",
  incomplete: "Only part of the audio reached the node. Try again.",
  shutting_down: "The node is shutting down and accepts no new requests. Try again later.",
  no_space: "The node has no disk space left for the audio. Try again later.",
  quarantined: "The node has quarantined this audio because it crashed while decoding it. Convert the file and try again.",
  journal_damaged: "The node could not read the audio back from its disk. Send it again.",
  cancelled: "The client cancelled the request or went away. Send it again if that was a mistake.",
  internal: "The node failed. See its log, and try again.",
  no_live: "Live captions need a WebSocket, which does not reach the node from here. The page records instead.",
  no_file: "This is not a file. Choose an audio file.",
  empty_file: "The file is empty. Choose another one.",
};

const BY_STATUS = {
  401: BY_CODE.unauthorized,
  403: "The node does not admit this page or device.",
  404: "The node has no transcription service at this address. Reload this page.",
  413: BY_CODE.too_large,
  415: BY_CODE.unsupported_media_type,
  429: BY_CODE.busy,
  502: "A proxy could not reach the node. Is it running?",
  503: "The node accepts no requests at the moment. Try again soon.",
  504: "The node did not answer in time.",
};

// Names of DOMException, as getUserMedia and MediaRecorder throw them.
const MICROPHONE = {
  NotAllowedError: "The browser denied this page the microphone. Allow it in the browser's settings for this page, or choose a file.",
  NotFoundError: "No microphone was found. Connect one, or choose a file.",
  NotReadableError: "The microphone cannot be used. Another program may be using it.",
  AbortError: "The microphone stopped working.",
};

/** Returns one or two sentences, the node's own message last. */
export function explain(error) {
  if (!(error instanceof Failure)) return `This page failed: ${error.message || error}`;
  const sentence = BY_CODE[error.code] ?? BY_STATUS[error.status];
  const own = error.detail && `The node says: ${error.detail}${/[.!?]$/.test(error.detail) ? "" : "."}`;
  if (sentence) return own ? `${sentence} ${own}` : sentence;
  return own || `The node answered with status ${error.status} and gave no reason.`;
}

// For requests of other programs.
const ELSEWHERE = {
  unsupported_media_type: "The node cannot read this file format. Convert the file, for example to FLAC or WAV.",
  unauthorized: "The request had no valid token. Give its program the node's token.",
  missing_field: "The request lacks a field that the node requires. Add it in the program that sent it.",
};

/** Returns what a code means and the next step, for a request of this page (`own`) or another. */
export function adviceFor(code, own) {
  return (own ? undefined : ELSEWHERE[code]) ?? BY_CODE[code] ?? "See the node's log.";
}

export function explainMicrophone(error) {
  return MICROPHONE[error.name] ?? `The microphone cannot be used: ${error.message}`;
}

/** Returns why the page has no microphone, or null if it has one. */
export function noMicrophone() {
  if (navigator.mediaDevices?.getUserMedia && window.MediaRecorder) return null;
  if (!window.isSecureContext) {
    return "Recording is off: browsers allow the microphone only over HTTPS or on the same machine (localhost), and this page uses plain HTTP. Choose a file instead.";
  }
  return "Recording is off: this browser cannot record. Choose a file instead.";
}
