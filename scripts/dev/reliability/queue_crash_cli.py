"""The program behind scripts/dev/crash --queue: kills the nodes of a cluster and its broker while
jobs are submitted, and cuts the broker's power. Every job that the broker acknowledged must have a
result and a line on stdout in the end."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from app.queue.limits import LIMITS
from reliability.power_cut import NoLoopMount, jobs_left_after_power_cut
from reliability.queue_crashes import QueueCrashes


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/dev/crash --queue", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills of nodes (default: 100)")
    parser.add_argument("--broker-kills", type=int, default=20, help="of the broker (default: 20)")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--longest", type=float, default=2.0, help="most seconds between two kills")
    parser.add_argument("--power-cut-jobs", type=int, default=400, help="0 leaves it out")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="node-whisper-queue-") as temporary:
        folder = Path(temporary)
        broken = _kill(options, folder)
        print(f"| minutes | {(time.monotonic() - began) / 60:.1f} |")
        if options.power_cut_jobs:
            broken += _cut(options.power_cut_jobs, folder)
    for line in broken[:20]:
        print(line, file=sys.stderr)
    return 1 if broken else 0


def _kill(options: argparse.Namespace, folder: Path) -> list[str]:
    at = folder / "broker"
    at.mkdir()
    crashes = QueueCrashes(at, options.nodes, options.seed, LIMITS.consumer.ack_wait)
    try:
        crashes.run(options.kills, options.broker_kills, options.longest)
        dead = crashes.admin.count("ASR_DEAD")
        left = crashes.admin.audio()
    finally:
        crashes.close()
    account = crashes.account
    print("| subject | value |\n|---|---|")
    print(f"| kills of nodes, of the broker | {account.node_kills}, {account.broker_kills} |")
    print(f"| jobs promised (acknowledged by the broker) | {len(account.promised)} |")
    print(f"| promised jobs without a line | {len(account.owed)} |")
    print(f"| results | {dict(account.outcomes)} |")
    print(f"| lines after the first of their job | {account.repeats} |")
    print(f"| lost or altered | {len(account.broken)} |")
    print(f"| dead jobs | {dead} |")
    print(f"| audio objects left | {len(left)} |")
    return account.broken


def _cut(jobs: int, folder: Path) -> list[str]:
    broken = []
    for sync in ("always", "2m"):
        at = folder / f"power-{sync}"
        at.mkdir()
        try:
            left = jobs_left_after_power_cut(at, jobs, sync)
        except NoLoopMount as error:
            print(f"no power cut: {error}", file=sys.stderr)
            return broken
        print(f"| left of {jobs} jobs after a power cut, sync_interval {sync} | {left} |")
        if sync == "always" and left != jobs:
            broken.append(f"a power cut took {jobs - left} jobs in spite of sync_interval always")
    return broken


if __name__ == "__main__":
    sys.exit(main())
