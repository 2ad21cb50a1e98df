// Records from the microphone until stopped.

import { Microphone } from "./microphone.js";

export class Recorder {
  #microphone;
  #recorder;
  #parts = [];

  /** Requests the microphone and starts recording; `onLevel` and `onEnd` are those of
   * `Microphone`. Throws what getUserMedia throws. */
  static async start(onLevel, onEnd) {
    const microphone = await Microphone.open(onEnd);
    try {
      return new Recorder(microphone, onLevel);
    } catch (error) {
      // Without a recorder nothing would release the microphone.
      microphone.close();
      throw error;
    }
  }

  constructor(microphone, onLevel) {
    this.#microphone = microphone;
    this.#recorder = new MediaRecorder(microphone.stream); // in the browser's preferred format
    this.#recorder.ondataavailable = (event) => this.#parts.push(event.data);
    this.#recorder.start();
    microphone.measure(onLevel);
  }

  /** Stops, releases the microphone, and returns the recording as a file. */
  async stop() {
    if (this.#recorder.state !== "inactive") {
      const stopped = new Promise((resolve) => this.#recorder.addEventListener("stop", resolve));
      this.#recorder.stop();
      await stopped;
    }
    this.#microphone.close();
    return new File(this.#parts, "recording", { type: this.#recorder.mimeType });
  }

  /** Stops and discards the recording. */
  discard() {
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    this.#microphone.close();
    this.#parts = [];
  }
}
