"""Loads one engine from a folder and runs it on request, one line for each run.

contest.py starts it under the Python of `.venv`, which has numpy, soundfile and soxr:

    python trial.py ENGINE_FOLDER MODEL AUDIO THREADS

It prints one JSON line when the model is loaded and one for each run. A line on stdin requests a
run: seconds of audio and the encoder context (0: full). Decoding is greedy and without fallback, so
that every engine does the same work.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def main() -> int:
    folder, model, audio, threads = sys.argv[1:5]
    sys.path.insert(0, folder)
    import _pywhispercpp as engine
    import numpy as np
    import soundfile
    import soxr

    samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
    clip = soxr.resample(samples.mean(axis=1), rate, 16_000).astype(np.float32)
    engine.whisper_log_set(lambda level, text: None)
    # Without flash attention, like the node: with it, other matrix products dominate the time.
    loading = engine.whisper_context_default_params()
    loading.flash_attn = False
    context = engine.whisper_init_from_file_with_params(model, loading)
    _say(file=engine.__file__, system_info=str(engine.whisper_print_system_info()).strip())
    for line in sys.stdin:
        seconds, encoder_context = (int(word) for word in line.split())
        repeats = -(-seconds * 16_000 // len(clip))
        window = np.ascontiguousarray(np.tile(clip, repeats)[: seconds * 16_000])
        params = engine.whisper_full_default_params(engine.WHISPER_SAMPLING_GREEDY)
        params.n_threads = int(threads)
        params.language = "en"
        params.audio_ctx = encoder_context
        params.temperature_inc = 0.0
        params.no_context = True
        params.print_progress = False
        params.greedy = {"best_of": 1}
        began, cpu = time.perf_counter(), time.process_time()
        code = engine.whisper_full(context, params, window, len(window))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        text = b"".join(
            engine.whisper_full_get_segment_text(context, index)
            for index in range(engine.whisper_full_n_segments(context))
        )
        _say(code=code, seconds=took, cpu=cpu, text=text.decode(errors="replace").strip())
    engine.whisper_log_set(None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
