"""The program behind scripts/dev/crash: kills a node with a journal at random moments while clients
send, and checks that every accepted request has an outcome in the end."""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from benchmark.environment import ROOT

from reliability.crashes import Clip, Crashes

_SPEECH = ROOT / "tests" / "audio" / "jfk.flac"
NODE = (sys.executable, "-m", "app", "--offline", "--output", "json", "--log-format", "json")
FAKE = (sys.executable, "tests/helpers/fake_node.py", *NODE[3:], "--vad-threshold", "0")


def clips(large: bool) -> list[Clip]:
    """Parts of a speech as raw samples, and a FLAC. `large` adds two bodies that the node does not
    keep in memory; one is a WAV without a length, which is repaired in a copy."""
    speech, rate = soundfile.read(_SPEECH, dtype="int16")
    pieces = {"short": speech[: 2 * rate], "middle": speech[2 * rate : 7 * rate]}
    if large:
        pieces["large"] = np.resize(speech, 150 * rate)
    raw = {
        "content-type": "audio/pcm",
        "content-encoding": "s16",
        "sample-rate": rate,
        "channels": 1,
    }
    found = [Clip(name, piece.astype("<i2").tobytes(), raw) for name, piece in pieces.items()]
    file = {"content-type": "audio/flac", "content-encoding": "flac"}
    found.append(Clip("file", _SPEECH.read_bytes(), file))
    if large:
        wav = {"content-type": "audio/wav", "content-encoding": "wav"}
        found.append(Clip("streamed", without_length(pieces["large"].tobytes(), rate), wav))
    return found


def without_length(samples: bytes, rate: int) -> bytes:
    """A WAV of 16-bit mono samples whose header states no length."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return b"RIFF\0\0\0\0WAVE" + form + b"data\0\0\0\0" + samples


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/dev/crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=4, help="simultaneous clients (default: 4)")
    parser.add_argument(
        "--longest", type=float, default=3.0, help="maximum seconds from listening to a kill"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--fake",
        action="store_true",
        help="use a fake engine that answers at once instead of tiny.en",
    )
    parser.add_argument(
        "--journal", type=Path, help="the node's journal (default: a temporary folder)"
    )
    parser.add_argument("node", nargs="*", metavar="-- OPTION", help="options for the node")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="node-whisper-crash-") as temporary:
        journal = options.journal or Path(temporary) / "journal"
        command = (*(FAKE if options.fake else NODE), *options.node)
        crashes = Crashes(command, journal, clips(large=options.fake), options.seed)
        try:
            crashes.run(options.kills, options.clients, options.longest)
        finally:
            crashes.close()
        left = sorted(entry.name for entry in (journal / "new").iterdir())
        quarantined = len(list((journal / "quarantine").iterdir()))
    account, broken = crashes.account, crashes.broken
    print("| what | value |\n|---|---|")
    print(f"| kills | {account.kills} |")
    print(f"| minutes | {(time.monotonic() - began) / 60:.1f} |")
    print(f"| requests sent | {len(account.sent)} |")
    print(f"| accepted (`accepted` or `ok` seen by the client) | {len(account.promised)} |")
    print(f"| accepted and on stdout | {len(account.promised) - len(account.missing)} |")
    print(f"| outcomes | {dict(account.outcomes)} |")
    print(f"| lines marked recovered | {account.recovered} |")
    print(f"| repeated lines of the same id | {account.repeats} |")
    print(f"| altered texts or lost requests | {len(broken)} |")
    print(f"| entries left in the journal at the end | {len(left)} |")
    print(f"| entries in quarantine | {quarantined} |")
    starts = f"{statistics.median(account.starts):.2f}, at most {max(account.starts):.2f}"
    print(f"| seconds from start to listening, median | {starts} |")
    for line in broken[:20]:
        print(line, file=sys.stderr)
    return 1 if broken or left else 0


if __name__ == "__main__":
    sys.exit(main())
