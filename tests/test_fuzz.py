"""The short form of scripts/dev/fuzz: the same targets over its seeds and a fixed set of damages.

What the long runs found stands as a test beside the module that was wrong.
"""

from __future__ import annotations

import random

import pytest
from reliability.seeds import SEEDS, WORDS
from reliability.targets import TARGETS

ROUNDS = {"decode": 4, "samples": 2}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to four bytes changed, a word put in, a stretch repeated or cut out."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(changed)) if changed else 0
        kind = rng.randrange(4)
        if kind == 0 and changed:
            # Headers stand at the beginning.
            changed[at % rng.choice((16, 128, len(changed))) % len(changed)] = rng.randrange(256)
        elif kind == 1:
            changed[at:at] = rng.choice(WORDS).encode()
        elif kind == 2:
            changed[at:at] = changed[at : at + rng.randrange(1, 64)]
        else:
            del changed[at : at + rng.randrange(1, 64)]
    return bytes(changed)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_real_and_damaged_input_breaks_no_promise(name: str) -> None:
    rng = random.Random(name)
    target = TARGETS[name]
    seeds = list(SEEDS[name]())
    assert seeds
    for seed in seeds:
        target(seed)
        for _ in range(ROUNDS.get(name, 40)):
            target(damaged(seed, rng))


def test_the_targets_notice_a_parser_that_disagrees_with_itself() -> None:
    """A fuzzer that cannot fail proves nothing."""
    from reliability.targets import check_protocol

    from app.protocols.native.protocol import NativeProtocol

    class Forgetful(NativeProtocol):
        def feed(self, data: bytes) -> None:
            super().feed(data[:-1] if len(data) == 3 else data)

    seed = next(iter(SEEDS["framed"]()))
    with pytest.raises(AssertionError):
        check_protocol(lambda: Forgetful(1 << 20, lambda: "made"), seed + b"\x02")
