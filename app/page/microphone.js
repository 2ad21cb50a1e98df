// The microphone and its level.

export class Microphone {
  #context;
  #beats = 0;

  /** Requests the microphone. `onEnd()` is called where it goes away by itself. Throws what
   * getUserMedia throws. */
  static async open(onEnd) {
    // The engine copes with noise, and noise suppression cuts the ends of words.
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true },
    });
    for (const track of stream.getTracks()) track.onended = onEnd;
    return new Microphone(stream);
  }

  constructor(stream) {
    this.stream = stream;
  }

  /** Calls `onLevel(level, seconds)` about as often as the screen is drawn, with the peak since the
   * last call (0 to 1). */
  measure(onLevel) {
    const began = performance.now();
    this.#context = new AudioContext();
    const analyser = this.#context.createAnalyser();
    this.#context.createMediaStreamSource(this.stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const beat = () => {
      analyser.getFloatTimeDomainData(samples);
      let peak = 0;
      for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
      onLevel(Math.min(1, peak), (performance.now() - began) / 1000);
      this.#beats = requestAnimationFrame(beat);
    };
    beat();
  }

  close() {
    cancelAnimationFrame(this.#beats);
    for (const track of this.stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    if (this.#context && this.#context.state !== "closed") this.#context.close();
  }
}
