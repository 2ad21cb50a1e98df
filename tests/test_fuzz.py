"""The short form of scripts/dev/fuzz: the same targets with its seeds and a fixed set of damages.

Each fault that the long runs found has a test beside those of its module.
"""

from __future__ import annotations

import random

import pytest
from reliability.seeds import SEEDS, WORDS
from reliability.targets import TARGETS

ROUNDS = {"decode": 4, "samples": 2, "media": 2, "wire": 200}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four bytes changed, a word inserted, or a range repeated or removed."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(changed)) if changed else 0
        kind = rng.randrange(4)
        if kind == 0 and changed:
            # Headers are at the beginning, so most damage goes there.
            changed[at % rng.choice((16, 128, len(changed))) % len(changed)] = rng.randrange(256)
        elif kind == 1:
            changed[at:at] = rng.choice(WORDS).encode()
        elif kind == 2:
            changed[at:at] = changed[at : at + rng.randrange(1, 64)]
        else:
            del changed[at : at + rng.randrange(1, 64)]
    return bytes(changed)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_targets_accept_real_and_damaged_input(name: str) -> None:
    rng = random.Random(name)
    target = TARGETS[name]
    seeds = list(SEEDS[name]())
    if name == "media" and not seeds:
        pytest.skip("PyAV is not installed here (requirements-media.txt)")
    assert seeds
    for seed in seeds:
        target(seed)
        for _ in range(ROUNDS.get(name, 40)):
            target(damaged(seed, rng))


def test_target_detects_a_parser_that_depends_on_the_split() -> None:
    """A fuzzer that cannot fail proves nothing."""
    from reliability.targets import check_protocol

    from app.protocols.native.protocol import NativeProtocol

    class Forgetful(NativeProtocol):
        def feed(self, data: bytes) -> None:
            super().feed(data[:-1] if len(data) == 3 else data)

    seed = next(iter(SEEDS["framed"]()))
    with pytest.raises(AssertionError):
        check_protocol(lambda: Forgetful(1 << 20, lambda: "made"), seed + b"\x02")
