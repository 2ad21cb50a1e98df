// The microphone: records until stopped and reports its level.

export class Recorder {
  #stream;
  #recorder;
  #context;
  #parts = [];
  #beats = 0;

  /** Requests the microphone and starts recording. `onLevel(level, seconds)` is called about as often as the
   * screen is drawn, with the peak since the last call (0 to 1). `onEnd()` is called where the
   * microphone goes away by itself. Throws what getUserMedia throws. */
  static async start(onLevel, onEnd) {
    // The engine copes with noise, and noise suppression cuts the ends of words.
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true },
    });
    try {
      return new Recorder(stream, onLevel, onEnd);
    } catch (error) {
      // Without a recorder nothing would release the microphone.
      for (const track of stream.getTracks()) track.stop();
      throw error;
    }
  }

  constructor(stream, onLevel, onEnd) {
    this.#stream = stream;
    this.#recorder = new MediaRecorder(stream); // in the browser's preferred format
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

  /** Stops, releases the microphone, and returns the recording as a file. */
  async stop() {
    if (this.#recorder.state !== "inactive") {
      const stopped = new Promise((resolve) => this.#recorder.addEventListener("stop", resolve));
      this.#recorder.stop();
      await stopped;
    }
    this.#release();
    return new File(this.#parts, "recording", { type: this.#recorder.mimeType });
  }

  /** Stops and discards the recording. */
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
