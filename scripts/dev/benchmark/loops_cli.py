"""The program behind scripts/dev/loops: the verdicts of `judge` on loops and on real repetitions.

Each short clip is decoded with several margins after the end of speech, without a prompt and with
four prompts as plain text, which make the decoder loop. Each clip is also repeated two and three
times at a distance of 0.5 s. Every decode is judged by its text alone (`hypothesis.fault`) and by
text and audio (`faults.judge`). Exits with status 1 if `judge` accepts a loop unchanged that the
text shows.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import structlog

from app.audio.vad import SileroDetector
from app.audio.windows import Windower
from app.decoding.attempts import Attempt
from app.decoding.audio_evidence import AudioEvidence
from app.decoding.context import FLOOR, FULL, LONGEST_SECONDS, POSITIONS_PER_SECOND
from app.decoding.engine import MIN_SAMPLES, Engine
from app.decoding.faults import fault, judge
from app.decoding.hypothesis import Hypothesis, most_tokens, normal_words
from app.decoding.prompt import PromptEncoder
from app.decoding.transcriber import DecodeOptions
from benchmark import corpus
from benchmark.prompts import PROMPTS

ROOT = Path(__file__).resolve().parents[3]

MARGINS = (32, 64, 128, 320)
GAP_SECONDS = 0.5
LIKE_LOOPS = {"limit", "repetition", "too fast"}
RIGHT = 0.75
"""difflib's ratio of the letters of a text and its reference. Misheard words are above it; an extra
or a missing sentence is below."""


@dataclass(frozen=True)
class Case:
    """A recording to decode: the `samples` of one window and the spoken `text`."""

    name: str
    kind: str
    samples: np.ndarray
    text: str
    prompt: str
    margin: int


class _PlainPrompts(PromptEncoder):
    """Omits the timestamps, which prevent most loops."""

    @classmethod
    def of(cls, prompts: PromptEncoder) -> _PlainPrompts:
        return cls(prompts._read_token, prompts._text_tokens, prompts._first_timestamp)

    def encode(self, prompt: str, carried: str, most: int) -> list[int]:
        return super().encode(prompt, carried, most)[1:-2]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/dev/loops", description=__doc__)
    audio = ROOT.parent / "shared" / "audio"
    parser.add_argument("--audio", type=Path, default=audio, help="folder with refs.tsv")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "ggml-tiny.en-q8_0.bin")
    parser.add_argument("--clips", type=int, default=1_000, help="number of clips (default: all)")
    arguments = parser.parse_args(argv)
    short = [
        clip
        for clip in corpus.read(arguments.audio)
        if clip.group == "speech" and clip.seconds < corpus.SHORT_SECONDS
    ]
    engine = Engine(arguments.model, arguments.model.stem, 1, "auto")
    engine._prompts = _PlainPrompts.of(engine._prompts)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    verdicts: Counter[tuple[str, str]] = Counter()
    try:
        for case in _cases(short[: arguments.clips]):
            kind, verdict, hypothesis = _judged(engine, case)
            verdicts[kind, verdict] += 1
            if verdict == "stands" and kind == "loop":
                print(f"{case.name}: loop accepted: {hypothesis.text}", file=sys.stderr)
    finally:
        engine.close()
    print("| decodes | judged by text and audio | |\n|---|---|--:|")
    for (kind, verdict), count in sorted(verdicts.items()):
        print(f"| {kind} | {verdict} | {count} |")
    return 1 if verdicts["loop", "stands"] else 0


def _cases(clips: Sequence[corpus.Clip]) -> Iterator[Case]:
    detector = SileroDetector()
    gap = np.zeros(int(GAP_SECONDS * corpus.RATE), np.float32)
    for clip in clips:
        once = corpus.samples(clip.path)
        for samples in _windows(once, detector):
            for name, prompt in {"no prompt": "", **PROMPTS}.items():
                for margin in MARGINS:
                    label = f"{clip.name}, {name}, margin {margin}"
                    yield Case(label, "once", samples, clip.text, prompt, margin)
        for count in (2, 3):
            several = np.concatenate([part for _ in range(count) for part in (once, gap)])
            windows = _windows(several, detector)
            if len(windows) == 1 and len(windows[0]) < LONGEST_SECONDS * corpus.RATE:
                text = " ".join([clip.text] * count)
                yield Case(f"{clip.name}, {count} times", "repeated", windows[0], text, "", 128)


def _windows(samples: np.ndarray, detector: SileroDetector) -> list[np.ndarray]:
    windower = Windower(detector, 0.5)
    windower.push(samples)
    windower.end()
    windows: list[np.ndarray] = []
    while not windower.exhausted and (window := windower.next()) is not None:
        windows.append(window.samples)
    return windows


def _judged(engine: Engine, case: Case) -> tuple[str, str, Hypothesis]:
    """Return the kind of a decode, the verdict of `judge`, and the remaining hypothesis."""
    seconds = len(case.samples) / corpus.RATE
    context = max(FLOOR, int(POSITIONS_PER_SECOND * seconds) + case.margin)
    attempt = Attempt(min(context, FULL - 1), case.prompt, most_tokens=most_tokens(seconds, "en"))
    padded = np.pad(case.samples, (0, max(0, MIN_SAMPLES - len(case.samples))))
    heard = engine._decode(padded, seconds, DecodeOptions(), attempt)
    left, reason = judge(heard, seconds, True, case.prompt, AudioEvidence(case.samples))
    if case.kind == "repeated":
        kind = "honest repetition"
    else:
        kind = "loop" if fault(heard, seconds, True, case.prompt) in LIKE_LOOPS else "other"
    if reason is not None:
        return kind, "decoded again", left
    if left == heard:
        return kind, "stands", left
    wanted, found = ("".join(normal_words(text)) for text in (case.text, left.text))
    ratio = SequenceMatcher(None, wanted, found).ratio()
    return kind, "cut right" if ratio >= RIGHT else "cut wrong", left


if __name__ == "__main__":
    sys.exit(main())
