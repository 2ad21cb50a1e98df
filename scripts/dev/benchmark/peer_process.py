"""A peer engine in a separate process, which reads the path of a WAV file from each stdin line.

    python -m benchmark.peer_process pywhispercpp MODEL THREADS LANGUAGE
    python -m benchmark.peer_process faster-whisper FOLDER THREADS LANGUAGE BEAM

It prints one JSON line when the model is loaded and one for each file. pywhispercpp runs with its
default parameters except for threads and language; faster-whisper runs in int8 with its defaults
except for threads, language and beam. The audio is decoded here within the measured time, like in
the node.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable


def _pywhispercpp(model: str, threads: int, language: str) -> Callable[[str], str]:
    from pywhispercpp.model import Model

    from benchmark.corpus import samples

    engine = Model(model, redirect_whispercpp_logs_to=None, n_threads=threads, language=language)

    def transcribe(path: str) -> str:
        segments = engine.transcribe(samples(path), print_progress=False)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def _faster_whisper(model: str, threads: int, language: str, beam: int) -> Callable[[str], str]:
    from faster_whisper import WhisperModel

    engine = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)
    fixed = None if language == "auto" else language

    def transcribe(path: str) -> str:
        segments, _ = engine.transcribe(path, beam_size=beam, language=fixed)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def main() -> int:
    kind, model, threads, language, *rest = sys.argv[1:]
    if kind == "pywhispercpp":
        transcribe = _pywhispercpp(model, int(threads), language)
    else:
        transcribe = _faster_whisper(model, int(threads), language, int(rest[0]))
    print(json.dumps({"ready": kind}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"text": transcribe(line.strip())}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
