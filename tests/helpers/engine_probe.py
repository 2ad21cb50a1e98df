"""Decodes the test clip in several ways with the engine on the module path; prints JSON.

A program, because two engines cannot be loaded into one process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr
import structlog

from app.decoding.attempts import Attempt
from app.decoding.binding import pw
from app.decoding.engine import Engine
from app.decoding.parameters import parameters
from app.decoding.transcriber import DecodeOptions

BEFORE = "He spoke of the long winter, and of the roads that nobody had repaired since the flood."


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    samples, rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
    clip = soxr.resample(samples.mean(axis=1), rate, 16_000).astype(np.float32)
    engine = Engine(Path(sys.argv[1]), "tiny.en-q8_0", 2, "auto")
    engine.warm_up()
    # Two sentences, apart: a text that repeats itself would be decoded again.
    long = np.concatenate([clip, np.zeros(6 * 16_000, np.float32), clip[4 * 16_000 :]])
    texts = [
        engine.transcribe(window, options).text
        for window, options in (
            (clip[: 3 * 16_000], DecodeOptions()),
            (clip, DecodeOptions(prompt=BEFORE)),
            (clip, DecodeOptions(words=True)),
            (long, DecodeOptions()),
            (long, DecodeOptions(carried=BEFORE * 6)),
        )
    ]
    # The logits after some text: in one pass, and token by token.
    model = engine._model
    assert model.raw is not None
    tokens = [model.start_of_text(DecodeOptions())[0], *range(300, 340)]
    model.raw.rewind(0)
    together = np.array(model.raw.feed(tokens))
    model.raw.rewind(0)
    for token in tokens:
        apart = model.raw.feed((token,))
    difference = float(np.abs(together - apart).max() / np.ptp(together))
    # A decode that is stopped before it begins: the callback counts the passes.
    passes: list[int] = []

    def after_pass() -> bool:
        passes.append(1)
        return True

    model.stop.set()
    params = parameters(DecodeOptions(), Attempt(1500, ""), (), 2, 220, after_pass)
    code = model.run(params, long)
    model.stop.clear()
    again = engine.transcribe(clip, DecodeOptions()).text
    print(
        json.dumps(
            {
                "file": pw.__file__,
                "texts": texts,
                "difference": difference,
                "stopped": {"code": code, "passes": len(passes)},
                "again": again,
                "reads_flag": model.stop.is_read,
            }
        )
    )
    engine.close()


if __name__ == "__main__":
    main()
