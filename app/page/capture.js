// Sends the microphone's samples to the page, in an AudioWorklet: 16-bit, 50 ms at a time.

const SECONDS = 0.05;

class Capture extends AudioWorkletProcessor {
  #samples = new Int16Array(Math.round(SECONDS * sampleRate));
  #count = 0;

  process([channels]) {
    const [input] = channels;
    // Without a channel the microphone has not delivered anything yet.
    for (const value of input ?? []) {
      this.#samples[this.#count] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
      this.#count += 1;
      if (this.#count === this.#samples.length) {
        this.port.postMessage(this.#samples.slice());
        this.#count = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
