"""The program behind scripts/dev/fuzz: coverage-guided fuzzing of one target for a given time.

libFuzzer does the work through atheris, which instruments the Python of `app`. libsndfile has no
instrumentation, so it is tested with mutations of real files. Interesting inputs stay in the corpus
folder. An input that causes a failure is written beside it, and the exit status is not 0.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app"]):
    from reliability.targets import TARGETS
from reliability.seeds import SEEDS, WORDS

_HANG_SECONDS = 30
_MEMORY_MIB = 1024
"""MiB of memory. The interpreter, numpy and the fuzzer's own tables take about 300 MiB."""

_LONGEST = 65_536
"""Maximum bytes of an input, equal to the maximum of a header."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/dev/fuzz", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="default: 600")
    parser.add_argument(
        "--corpus",
        type=Path,
        help="folder of inputs to start from and extend (default: /var/tmp/...)",
    )
    parser.add_argument("--input", type=Path, help="run only this input")
    options = parser.parse_args()
    target = TARGETS[options.target]
    if options.input is not None:
        target(options.input.read_bytes())
        return 0
    corpus = options.corpus or Path("/var/tmp/node-whisper-fuzz") / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[options.target]():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    words = corpus.parent / "words"
    words.write_text("".join(f'"{word}"\n' for word in WORDS))
    arguments = [
        f"-dict={words}",
        f"-max_total_time={options.seconds}",
        f"-timeout={_HANG_SECONDS}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-max_len={_LONGEST}",
        # libmpg123 reports every bad frame on stderr.
        f"-close_fd_mask={2 if options.target in ('decode', 'samples') else 0}",
        "-print_final_stats=1",
        f"-artifact_prefix={corpus.parent}/{options.target}-",
        str(corpus),
    ]
    print(f"{options.target}: {options.seconds} s, corpus {corpus}", file=sys.stderr)
    started = time.monotonic()
    atheris.Setup([sys.argv[0], *arguments], target)
    try:
        atheris.Fuzz()
    finally:
        print(f"{options.target}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
