// Live captions: the microphone, a live session, and a line for each utterance.

import { LiveSession } from "./live.js";
import { Microphone } from "./microphone.js";
import * as result from "./result.js";

const RATE = 16000; // Hz; the engine's own
const MOST = 48000; // Hz; the most that the node takes

/** Returns whether this browser can show live captions. */
export function available() {
  return Boolean(window.WebSocket && window.AudioWorkletNode && navigator.mediaDevices?.getUserMedia);
}

export class Captions {
  #microphone;
  #context;
  #session = null;
  #lines = new Map();
  #onFailure;

  /** Opens the microphone and a session and shows what is said. `onEnd()` is called where the
   * microphone goes away, `onFailure(error)` where the session fails. Throws what getUserMedia
   * throws, and Failure. */
  static async start(options, onLevel, onEnd, onFailure) {
    const microphone = await Microphone.open(onEnd);
    const captions = new Captions(microphone, onFailure);
    try {
      await captions.#begin(options);
    } catch (error) {
      captions.discard();
      throw error;
    }
    microphone.measure(onLevel);
    return captions;
  }

  constructor(microphone, onFailure) {
    this.#microphone = microphone;
    this.#onFailure = onFailure;
  }

  async #begin(options) {
    const source = this.#connect();
    await this.#context.audioWorklet.addModule("capture.js");
    const capture = new AudioWorkletNode(this.#context, "capture", { numberOfOutputs: 0 });
    // What is said while the session opens is kept.
    const early = [];
    capture.port.onmessage = ({ data }) => (this.#session ? this.#session.send(data) : early.push(data));
    source.connect(capture);
    const session = await LiveSession.open(this.#context.sampleRate, options, {
      began: (item, start) => this.#lines.set(item, result.addOpen(start)),
      changed: (item, stable, rest) => this.#change(item, stable, rest),
      final: (item, segment, latency) => this.#finish(item, segment, latency),
      dropped: (item) => this.#drop(item),
      failed: this.#onFailure,
    });
    for (const samples of early) session.send(samples);
    this.#session = session;
  }

  /** Returns the microphone as a source at 16 kHz, or at its own rate where the browser does not
   * convert (Firefox). */
  #connect() {
    for (const rate of [RATE, undefined, MOST]) {
      const context = new AudioContext({ sampleRate: rate });
      try {
        if (context.sampleRate > MOST) throw new Error(`the rate of the microphone is ${context.sampleRate} Hz`);
        const source = context.createMediaStreamSource(this.#microphone.stream);
        this.#context = context;
        return source;
      } catch (error) {
        context.close();
        if (rate === MOST) throw error;
      }
    }
    return undefined;
  }

  #change(item, stable, rest) {
    const line = this.#lines.get(item);
    if (line === undefined) return;
    const unstable = document.createElement("i");
    unstable.textContent = rest;
    line.querySelector("span").replaceChildren(stable, unstable);
  }

  #finish(item, segment, latency) {
    const line = this.#lines.get(item) ?? result.addOpen(segment.start);
    this.#lines.delete(item);
    line.querySelector("span").textContent = segment.text;
    result.keep(segment, line);
    const about = document.createElement("small");
    about.className = "quiet";
    const sure = segment.confidence === null ? "" : `, ${Math.round(100 * segment.confidence)} % sure`;
    about.textContent = `${latency.toFixed(1)} s${sure}`;
    about.title = "Time from the end of the words to this text, and the confidence of the model";
    line.append(about);
  }

  #drop(item) {
    this.#lines.get(item)?.remove();
    this.#lines.delete(item);
  }

  /** Releases the microphone, and waits until the last words are final. */
  async stop() {
    this.#release();
    await this.#session.stop();
    for (const item of [...this.#lines.keys()]) this.#drop(item);
  }

  /** Stops at once; what is not final is dropped. */
  discard() {
    this.#release();
    this.#session?.close();
    for (const item of [...this.#lines.keys()]) this.#drop(item);
  }

  #release() {
    this.#microphone.close();
    if (this.#context && this.#context.state !== "closed") this.#context.close();
  }
}
