"""The program behind scripts/dev/soak: runs honest and hostile clients together, samples the memory
and descriptors of the node every few seconds, and prints their slope at the end.

Honest clients check every text. The node is a separate process, and the figures come from the
kernel.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import soundfile
import soxr
from benchmark.environment import ROOT
from benchmark.node import NodeProcess, request

from reliability.hostile import KINDS, Address, Kind, prepare
from reliability.hostile_sockets import SOCKET_KINDS, transcribe

_CLIP = ROOT / "tests" / "audio" / "jfk.flac"
_EXPECTED = "ask not what your country can do for you"
_SAMPLE_SECONDS = 5.0
_WARM_SHARE = 0.2
"""The share of the run that counts as warm-up; its allocations are not a leak."""


@dataclass
class Tally:
    """Counters of events, shared by all threads."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, wrong: str | None = None) -> None:
        with self.lock:
            self.ends[what] += 1
            if wrong is not None:
                self.wrong.append(f"{what}: {wrong}")


@dataclass(frozen=True)
class Sample:
    """A sample of the node: seconds since the start, MiB resident, open descriptors, threads."""

    at: float
    resident: float
    descriptors: int
    threads: int


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/dev/soak", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--honest", type=int, default=3, help="simultaneous honest clients (default: 3)"
    )
    parser.add_argument(
        "--hostile", type=int, default=10, help="simultaneous hostile connections (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("node", nargs="*", metavar="-- OPTION", help="options for the node")
    options = parser.parse_args()
    prepare()
    end = time.monotonic() + options.minutes * 60
    tally = Tally()
    node = NodeProcess(Path(sys.executable), "tiny.en", ["--http-port", "0", *options.node])
    http = ("127.0.0.1", int(node.listening["http"].rstrip("/").rpartition(":")[2]))
    try:
        workers = [
            threading.Thread(target=_honest, args=(node.address, end, tally, number), daemon=True)
            for number in range(options.honest)
        ]
        workers += [
            threading.Thread(target=_honest_live, args=(http, end, tally), daemon=True),
        ]
        kinds = [(kind, node.address) for kind in KINDS] + [(kind, http) for kind in SOCKET_KINDS]
        workers += [
            threading.Thread(
                target=_hostile,
                args=(kinds, end, tally, random.Random(options.seed + number)),
                daemon=True,
            )
            for number in range(options.hostile)
        ]
        for worker in workers:
            worker.start()
        samples = _watch(node.pid, end)
        for worker in workers:
            worker.join(180)
        stuck = sum(worker.is_alive() for worker in workers)
    finally:
        node.close()
    _report(samples, tally, stuck)
    return 1 if tally.wrong or stuck else 0


def _honest(address: tuple[str, int], end: float, tally: Tally, number: int) -> None:
    body = _CLIP.read_bytes()
    while time.monotonic() < end:
        try:
            fields = request(address, body, "flac").fields
        except Exception as error:
            tally.note("honest", repr(error))
            continue
        good = fields.get("status") == "ok" and _EXPECTED in fields["text"].lower()
        tally.note("honest", None if good else str(fields)[:300])
        # One client pauses from time to time, so that the node is also sampled idle.
        if number == 0:
            time.sleep(1.0)


def _honest_live(address: Address, end: float, tally: Tally) -> None:
    """Send the clip over WebSocket, again and again."""
    wave, rate = soundfile.read(_CLIP, dtype="float32", always_2d=True)
    samples = (soxr.resample(wave.mean(axis=1), rate, 24_000) * 32767).astype("<i2").tobytes()
    while time.monotonic() < end:
        try:
            text = transcribe(address, samples)
        except Exception as error:
            tally.note("honest live", repr(error))
            continue
        good = _EXPECTED in re.sub(r"[^a-z ]", "", text.lower())
        tally.note("honest live", None if good else text[:300])


def _hostile(
    kinds: list[tuple[Kind, Address]], end: float, tally: Tally, rng: random.Random
) -> None:
    while time.monotonic() < end:
        kind, address = rng.choice(kinds)
        try:
            ended = kind.play(address, rng)
        except Exception as error:
            tally.note(kind.name, repr(error))
            continue
        tally.note(kind.name, None if ended in kind.allowed else f"ended with {ended}")


def _watch(pid: int, end: float) -> list[Sample]:
    process = psutil.Process(pid)
    began = time.monotonic()
    samples = []
    while time.monotonic() < end:
        time.sleep(_SAMPLE_SECONDS)
        resident = process.memory_info().rss / 2**20
        at = time.monotonic() - began
        samples.append(Sample(at, resident, process.num_fds(), process.num_threads()))
        if len(samples) % 60 == 0:
            print(f"{at / 60:5.1f} min  {resident:6.1f} MiB", file=sys.stderr)
    return samples


def _report(samples: list[Sample], tally: Tally, stuck: int) -> None:
    warm = samples[int(len(samples) * _WARM_SHARE) :]
    slope = statistics.linear_regression(
        [sample.at / 3600 for sample in warm], [sample.resident for sample in warm]
    ).slope
    print("| what | value |\n|---|---|")
    print(f"| minutes | {samples[-1].at / 60:.1f} |")
    print(f"| honest requests | {tally.ends.pop('honest', 0)} |")
    print(f"| honest live sessions | {tally.ends.pop('honest live', 0)} |")
    print(f"| hostile connections | {sum(tally.ends.values())} of {len(tally.ends)} kinds |")
    print(f"| with a wrong end | {len(tally.wrong)} |")
    print(f"| clients stuck at the end | {stuck} |")
    print(f"| MiB resident: warm, at the end, maximum | {warm[0].resident:.1f}, ", end="")
    print(f"{samples[-1].resident:.1f}, {max(sample.resident for sample in samples):.1f} |")
    print(f"| slope after warm-up, MiB an hour | {slope:+.2f} |")
    print(
        f"| descriptors, warm and at the end | {warm[0].descriptors}, {samples[-1].descriptors} |"
    )
    print(f"| threads, warm and at the end | {warm[0].threads}, {samples[-1].threads} |")
    for line in tally.wrong[:20]:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
