// The microphone: records until stopped, and says how loud it is meanwhile.

export class Recorder {
  #stream;
  #recorder;
  #context;
  #parts = [];
  #beats = 0;

  /** Asks for the microphone and begins. `onLevel(level, seconds)` is called about as often as the
   * screen is drawn, with the peak since the last call (0 to 1). `onEnd()` is called where the
   * microphone goes away by itself. Throws what getUserMedia throws. */
  static async start(onLevel, onEnd) {
    // The engine knows noise; what suppresses it takes the ends off words as well.
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true },
    });
    try {
      return new Recorder(stream, onLevel, onEnd);
    } catch (error) {
      // Nobody could let go of the microphone any more.
      for (const track of stream.getTracks()) track.stop();
      throw error;
    }
  }

  constructor(stream, onLevel, onEnd) {
    this.#stream = stream;
    this.#recorder = new MediaRecorder(stream); // in the form this browser likes best
    this.#recorder.ondataavailable = (event) => this.#parts.push(event.data);
    for (const track of stream.getTracks()) track.onended = onEnd;
    this.#recorder.start();
    this.#measure(stream, onLevel);
  }

  #measure(stream, onLevel) {
    const began = performance.now();
    this.#context = new AudioContext();
    const analyser = this.#context.createAnalyser();
    this.#context.createMediaStreamSource(stream).connect(analyser);
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

  /** Ends it and lets go of the microphone: everything said so far, as a file. */
  async stop() {
    if (this.#recorder.state !== "inactive") {
      const stopped = new Promise((resolve) => this.#recorder.addEventListener("stop", resolve));
      this.#recorder.stop();
      await stopped;
    }
    this.#release();
    return new File(this.#parts, "recording", { type: this.#recorder.mimeType });
  }

  /** Ends it and forgets it. */
  discard() {
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    this.#release();
    this.#parts = [];
  }

  #release() {
    cancelAnimationFrame(this.#beats);
    for (const track of this.#stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    if (this.#context.state !== "closed") this.#context.close();
  }
}
