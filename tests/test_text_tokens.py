"""The tokens of segments: joined they are the text, whatever was divided or removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.decoding.break_times import SoundBreaks
from app.decoding.cue_layout import lay_out
from app.decoding.cues import fit
from app.decoding.decoded import Decoded, Token
from app.decoding.faults import cut
from app.decoding.hypothesis import Hypothesis, join
from app.decoding.markers import without_markers
from app.decoding.text_tokens import divided, fitted
from app.decoding.tokens import SegmentBuilder
from app.limits import CueLayout
from app.messages import Segment, TextToken
from app.protocols.logprobs import joined, logprobs_json

SILENCE = np.zeros(16_000 * 12, dtype=np.float32)


def tokens(*parts: str | bytes) -> tuple[TextToken, ...]:
    """Tokens with the log probabilities -1, -2 and so on."""
    data = (part.encode() if isinstance(part, str) else part for part in parts)
    return tuple(TextToken(part, -float(number)) for number, part in enumerate(data, 1))


def parts(some: Iterable[TextToken] | None) -> list[tuple[bytes, float]]:
    assert some is not None
    return [(token.data, token.logprob) for token in some]


def built(parts: Sequence[str | bytes], seconds: float = 12.0) -> tuple[Segment, ...]:
    builder = SegmentBuilder(seconds, "en", with_words=False, with_tokens=True)
    return builder.build(
        Decoded(tuple(Token(7, token.data, token.logprob) for token in tokens(*parts)))
    )


def check(segments: Iterable[Segment]) -> None:
    """The tokens are the text of each segment, and in the order of the decoder."""
    for segment in segments:
        assert segment.tokens is not None
        data = b"".join(token.data for token in segment.tokens)
        assert data.decode(errors="replace") == segment.text
        assert all(token.data for token in segment.tokens)
        logprobs = [token.logprob for token in segment.tokens]
        assert logprobs == sorted(logprobs, reverse=True)


def test_tokens_are_made_only_if_requested() -> None:
    (segment,) = SegmentBuilder(1.0, "en", False).build(Decoded((Token(7, b" One", -0.1),)))
    assert segment.tokens is None
    assert all(one.tokens is None for one in without_markers([replace(segment, text="[a] b")]))


def test_outer_white_space_is_removed_as_from_the_text() -> None:
    (segment,) = built([" And", " so", " "])
    assert parts(segment.tokens) == [(b"And", -1.0), (b" so", -2.0)]


def test_token_of_a_part_of_a_character_keeps_its_bytes() -> None:
    (segment,) = built([" a", b"\xe6\x97", b"\xa5", "本"])
    assert parts(segment.tokens) == [
        (b"a", -1.0),
        (b"\xe6\x97", -2.0),
        (b"\xa5", -3.0),
        ("本".encode(), -4.0),
    ]
    shown = logprobs_json(segment.tokens or ())
    assert [one["token"] for one in shown] == ["a", "\ufffd", "\ufffd", "本"]
    assert shown[1]["bytes"] == [0xE6, 0x97]


def test_marker_takes_its_tokens_along() -> None:
    (segment,) = without_markers(built([" (", "laugh", "s", ").", " Hello", ".", " [Mu", "sic]"]))
    assert segment.text == "Hello."
    assert parts(segment.tokens) == [(b"Hello", -5.0), (b".", -6.0)]


def test_same_word_within_a_marker_is_not_taken_for_the_spoken_one() -> None:
    (segment,) = without_markers(built([" [HELLO", " MUSIC]", " HELLO", " you"]))
    assert parts(segment.tokens) == [(b"HELLO", -3.0), (b" you", -4.0)]


def test_token_of_which_a_part_is_removed_keeps_the_rest() -> None:
    (segment,) = without_markers(built([" one", " ♪two", " ♪", " three"]))
    assert segment.text == "one two three"
    assert parts(segment.tokens) == [(b"one", -1.0), (b" two", -2.0), (b" three", -4.0)]


def test_loop_is_cut_with_its_tokens() -> None:
    segments = built([" well"] + [" so", " it", " goes"] * 4)
    shorter = cut(Hypothesis(segments, "en", -0.1, 12.0), 1)
    assert shorter is not None
    assert shorter.text == "well so it goes"
    check(shorter.segments)


def test_cues_have_the_tokens_of_their_text() -> None:
    (segment,) = built([" Alpha", " beta,", " gamma", " delta.", " Zeta", " eta", " theta."])
    breaks = SoundBreaks(SILENCE)
    cues = lay_out(segment, CueLayout(width=14, lines=1, seconds=7.0), breaks)
    assert len(cues) > 1
    check(cues)
    whole = lay_out(segment, CueLayout(width=80, lines=1, seconds=20.0), breaks)
    assert len(whole) == 1
    check(whole)


def test_joined_tokens_are_the_joined_text() -> None:
    segments = [
        Segment(0, 1, "One", 1.0, tokens=tokens("One")),
        Segment(1, 2, "tw", 1.0, tokens=tokens("tw")),
        Segment(2, 3, "o", 1.0, tokens=tokens("o"), continues=True),
    ]
    assert [token.data for token in joined(segments)] == [b"One", b" tw", b"o"]
    assert b"".join(token.data for token in joined(segments)).decode() == join(segments)


CHARACTERS = st.sampled_from("ab cd.,  [](Music)♪ 日本ñ\u0301😀-?*")
PIECES = st.lists(st.text(CHARACTERS, min_size=1, max_size=6), min_size=1, max_size=30)


@given(PIECES, st.lists(st.integers(1, 9), min_size=1))
def test_tokens_remain_the_text_through_every_step(pieces: list[str], sizes: list[int]) -> None:
    data = " ".join(pieces).encode()
    bites = []
    while data:
        size = sizes[len(bites) % len(sizes)]
        bites.append(data[:size])
        data = data[size:]
    segments = built(bites)
    check(segments)
    short = fit(segments, SILENCE)
    check(short)
    assert len(short) >= len(segments)
    spoken = without_markers(short)
    check(spoken)
    layout = CueLayout(width=9, lines=1, seconds=3.0)
    check(cue for one in spoken for cue in lay_out(one, layout, SoundBreaks(SILENCE)))
    looped = [*bites, b" ab", b" cd", b" ab", b" cd", b" ab", b" cd"]
    shorter = cut(Hypothesis(built(looped), "en", -0.1, 12.0), 1)
    assert shorter is not None
    check(shorter.segments)


def test_bytes_that_are_no_text_stay_in_the_tokens() -> None:
    (segment,) = built([" a", b"\xe6\x97", " b"])
    assert segment.text == "a\ufffd b"
    assert parts(segment.tokens) == [(b"a", -1.0), (b"\xe6\x97", -2.0), (b" b", -3.0)]
    first, second = divided(segment.tokens, ["a", "\ufffd b"])
    assert parts(first) == [(b"a", -1.0)]
    assert parts(second) == [(b"\xe6\x97", -2.0), (b" b", -3.0)]


def test_none_stays_none() -> None:
    assert fitted(None, "text") is None
    assert divided(None, ["a", "b"]) == [None, None]
