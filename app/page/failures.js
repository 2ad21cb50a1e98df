// What went wrong, as a sentence for the person in front of the page.

/** Something the node said no to, or that broke on the way. `code` is the node's own. */
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
  broken_off: "The connection broke off before the node was done. What is shown below came before that.",
  unauthorized: "The node did not accept the token.",
  unsupported_media_type: "Neither this browser nor the node knows this kind of file.",
  bad_audio: "There is nothing in this file that can be decoded as sound.",
  audio_too_long: "The recording is longer than this node takes.",
  too_large: "The file is larger than this node takes.",
  bad_field: "The node does not accept one of the options.",
  missing_field: "The node misses something in the request, so this page does not fit it.",
  busy: "The node has more to do than it can take. Try again in a moment.",
  timeout: "The audio did not reach the node in time. The network may be slow.",
  incomplete: "Not all of the audio reached the node.",
  shutting_down: "The node is shutting down and takes nothing new.",
  no_space: "The node has no room left for the audio.",
  quarantined: "The node has set this audio aside, because it failed on it before.",
  cancelled: "The request was cancelled.",
  internal: "The node failed. Its log says more.",
  no_file: "That was not a file.",
  empty_file: "The file is empty.",
};

const BY_STATUS = {
  401: BY_CODE.unauthorized,
  403: "The node does not let this device in.",
  404: "There is no transcription at this address. This page does not fit the node.",
  413: BY_CODE.too_large,
  415: BY_CODE.unsupported_media_type,
  429: BY_CODE.busy,
  502: "Something between here and the node could not reach it.",
  503: "The node takes nothing at the moment. Try again soon.",
  504: "The node did not answer in time.",
};

// Names of DOMException, as getUserMedia and MediaRecorder throw them.
const MICROPHONE = {
  NotAllowedError: "This browser was not allowed to use the microphone. Its settings for this page can change that; a file works without.",
  NotFoundError: "No microphone was found. A file works without.",
  NotReadableError: "The microphone is there but cannot be used. Another program may be holding it.",
  AbortError: "The microphone stopped working.",
};

/** One or two sentences; the node's own words come after ours. */
export function explain(error) {
  if (!(error instanceof Failure)) return `This page failed: ${error.message || error}`;
  const sentence = BY_CODE[error.code] ?? BY_STATUS[error.status];
  const own = error.detail && `The node says: ${error.detail}${/[.!?]$/.test(error.detail) ? "" : "."}`;
  if (sentence) return own ? `${sentence} ${own}` : sentence;
  return own || `The node answered with status ${error.status} and no reason.`;
}

export function explainMicrophone(error) {
  return MICROPHONE[error.name] ?? `The microphone cannot be used: ${error.message}`;
}

/** Why there is no microphone on this page, or null where there is one. */
export function noMicrophone() {
  if (navigator.mediaDevices?.getUserMedia && window.MediaRecorder) return null;
  if (!window.isSecureContext) {
    return "Recording is off: browsers give a page the microphone only over HTTPS or from the same machine (localhost), and this page came over plain HTTP. Choosing a file works.";
  }
  return "Recording is off: this browser cannot record. Choosing a file works.";
}
