// A live session: samples of the microphone to the node's `v1/realtime`, captions back.

import { Failure } from "./failures.js";
import { protocols, status } from "./node.js";

const PAUSE = 500; // ms of silence that end an utterance
const PATIENCE = 30_000; // ms to wait for the last words
const PARTIAL = "item.input_audio_transcription.partial";
const BASE64_PIECE = 0x8000; // most arguments of one call of fromCharCode

export class LiveSession {
  #socket;
  #captions;
  #rate;
  #samples = 0;
  #began = Infinity; // the earliest time at which sample 0 can have been spoken, in ms
  #open = new Map(); // utterances that are not final, by item
  #stopping = null; // what `stop` waits for: {resolve, committed}
  #ended = false;

  /** Opens a session for samples at `rate` Hz. `captions` has `began(item, start)`,
   * `changed(item, stable, rest)`, `final(item, segment, latency)`, `dropped(item)` and
   * `failed(error)`. Throws Failure: `no_live` if there is no WebSocket to the node. */
  static async open(rate, { language, prompt }, captions) {
    const address = new URL("v1/realtime?intent=transcription", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address, protocols());
    const session = new LiveSession(socket, rate, captions);
    try {
      await session.#heard("session.created", "error");
      const transcription = {};
      if (language) transcription.language = language;
      if (prompt) transcription.prompt = prompt;
      session.#send({
        type: "session.update",
        session: {
          type: "transcription",
          audio: {
            input: {
              format: { type: "audio/pcm", rate },
              transcription,
              turn_detection: { type: "server_vad", silence_duration_ms: PAUSE },
            },
          },
          include: [PARTIAL],
        },
      });
      const answer = await session.#heard("session.updated", "error");
      if (answer.type === "error") throw new Failure(answer.error.code, answer.error.message);
    } catch (error) {
      session.close();
      throw error;
    }
    socket.onmessage = (event) => session.#react(JSON.parse(event.data));
    socket.onclose = () => session.#lose();
    return session;
  }

  constructor(socket, rate, captions) {
    this.#socket = socket;
    this.#rate = rate;
    this.#captions = captions;
  }

  /** Waits for an event of one of these types. A socket that does not open says not why. */
  #heard(...types) {
    return new Promise((resolve, reject) => {
      this.#socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (types.includes(event.type)) resolve(event);
      };
      this.#socket.onclose = async () => {
        try {
          await status();
          reject(new Failure("no_live"));
        } catch (error) {
          reject(error);
        }
      };
    });
  }

  /** Sends an Int16Array of samples. */
  send(samples) {
    if (this.#ended || this.#stopping) return;
    this.#samples += samples.length;
    this.#began = Math.min(this.#began, performance.now() - (1000 * this.#samples) / this.#rate);
    this.#send({ type: "input_audio_buffer.append", audio: base64(samples) });
  }

  /** Ends the audio, and waits until all that was said is final. */
  async stop() {
    if (!this.#ended) {
      const done = new Promise((resolve) => (this.#stopping = { resolve, committed: false }));
      this.#send({ type: "input_audio_buffer.commit" });
      const timer = setTimeout(() => this.#stopping.resolve(), PATIENCE);
      await done;
      clearTimeout(timer);
    }
    this.close();
  }

  close() {
    this.#ended = true;
    this.#stopping?.resolve();
    this.#socket.onclose = null;
    this.#socket.close(1000);
  }

  #send(event) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(event));
  }

  #react(event) {
    const item = event.item_id;
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.#open.set(item, { start: event.audio_start_ms / 1000, end: null });
        this.#captions.began(item, event.audio_start_ms / 1000);
        break;
      case "input_audio_buffer.speech_stopped":
        if (this.#open.has(item)) this.#open.get(item).end = event.audio_end_ms / 1000;
        break;
      case "input_audio_buffer.committed":
        if (this.#stopping) this.#stopping.committed = true;
        break;
      case "conversation.item.input_audio_transcription.partial":
        this.#captions.changed(item, event.stable, event.rest);
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.#complete(item, event);
        break;
      case "conversation.item.input_audio_transcription.failed":
        this.#open.delete(item);
        this.#captions.dropped(item);
        this.#captions.failed(new Failure(event.error.code ?? "", event.error.message));
        break;
      case "error":
        // Nothing was open when the audio ended.
        if (this.#stopping) this.#stopping.committed = true;
        else this.#captions.failed(new Failure(event.error.code ?? "", event.error.message));
        break;
    }
    if (this.#stopping?.committed && this.#open.size === 0) this.#stopping.resolve();
  }

  #complete(item, { transcript, confidence }) {
    const now = this.#samples / this.#rate;
    const { start, end } = this.#open.get(item) ?? { start: now, end: null };
    this.#open.delete(item);
    const text = transcript.trim();
    if (text === "") {
      this.#captions.dropped(item);
      return;
    }
    const segment = { start, end: end ?? now, text, confidence: confidence ?? null };
    const spoken = this.#began + 1000 * segment.end;
    this.#captions.final(item, segment, Math.max(0, performance.now() - spoken) / 1000);
  }

  #lose() {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopping?.resolve();
    this.#captions.failed(new Failure("broken_off"));
  }
}

/** Returns the samples as little-endian bytes in base64. */
function base64(samples) {
  const bytes = new Uint8Array(2 * samples.length);
  const view = new DataView(bytes.buffer);
  samples.forEach((sample, i) => view.setInt16(2 * i, sample, true));
  let letters = "";
  for (let i = 0; i < bytes.length; i += BASE64_PIECE) {
    letters += String.fromCharCode(...bytes.subarray(i, i + BASE64_PIECE));
  }
  return btoa(letters);
}
