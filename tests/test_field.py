"""Recordings as users make them, through the real node: each input of ../shared/field that is about
what is heard, and inputs of the same kind made from jfk.flac. `test_hearing.py` has more of these
for levels, channels and range, without the sockets."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import soxr
from benchmark import degrade
from benchmark.noises import NOISES
from benchmark.scoring import score
from node import HANG, JFK, ROOT, Node, stopped_cleanly

FIELD = ROOT.parent / "shared" / "field"
RATE = 16_000

LAMP = "turn on the living room lamp"
WEASELS = "weasels have eaten our phone system"
JFK_WORDS = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)
ENDING = "ask what you can do for your country"
INSTRUCTION = (
    "Transcribe the audio exactly. The speaker may mention Kubernetes, PostgreSQL, and "
    "node-whisper. Do not translate."
)
NOTES = "Notes from the meeting, 2024."

LONGEST_CUE = 12.0
NO_LENGTH = 0.02
"""The share of words that may begin and end at the same moment."""

needs_field = pytest.mark.skipif(
    not FIELD.is_dir(), reason=f"the recordings from the field are not at {FIELD}"
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with stopped_cleanly(Node("--http-port", "0")) as node:
        yield node


@pytest.fixture(scope="module")
def jfk() -> degrade.Samples:
    """The clip as mono float32 at 16 kHz."""
    data, rate = soundfile.read(JFK, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(data.mean(axis=1), rate, RATE), np.float32)


@pytest.fixture(scope="module")
def ending(jfk: degrade.Samples) -> degrade.Samples:
    """Its last eight words, cut in the pause before them."""
    return jfk[round(8.1 * RATE) :]


def heard(node: Node, name: str, **fields: Any) -> str:
    """The words of a file of ../shared/field."""
    return words(text(node, (FIELD / name).read_bytes(), **fields))


def heard_samples(
    node: Node, samples: degrade.Samples, subtype: str = "PCM_16", **fields: Any
) -> str:
    """The words of `samples` as a WAV file."""
    return words(text(node, wav(samples, subtype), **fields))


def text(node: Node, body: bytes, **fields: Any) -> str:
    reply = node.ask(body, **fields)
    assert reply["status"] == "ok", reply
    return str(reply["text"])


def wav(samples: degrade.Samples, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype=subtype)
    return file.getvalue()


def words(said: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", said.lower()))


def cues(
    node: Node, name: str, body: bytes, prompt: str = "", **fields: Any
) -> list[tuple[float, float, str]]:
    """Begin and end in seconds, and text with its line breaks, of each cue of an SRT reply."""
    place = str(node.listening["http"]).rstrip("/")
    with openai.OpenAI(
        base_url=f"{place}/v1", api_key="none", timeout=HANG, max_retries=0
    ) as client:
        srt = client.audio.transcriptions.create(
            file=(name, body),
            model="whisper-1",
            response_format="srt",
            prompt=prompt,
            extra_body=fields,
        )
    found = []
    for cue in str(srt).strip().split("\n\n"):
        _, times, *lines = cue.split("\n")
        begin, end = (seconds(moment) for moment in times.split(" --> "))
        found.append((begin, end, "\n".join(lines)))
    return found


def seconds(moment: str) -> float:
    hours, minutes, rest = moment.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def assert_short_cues(found: list[tuple[float, float, str]]) -> None:
    assert all(end - begin <= LONGEST_CUE for begin, end, _ in found), found
    assert all(one[1] <= two[0] for one, two in pairwise(found)), found


# Subtitles.


@needs_field
def test_subtitles_have_short_cues_after_the_first_window(node: Node) -> None:
    name = "01-printing-56s.ogg"
    found = cues(node, name, (FIELD / name).read_bytes())
    assert_short_cues(found)
    assert len(found) >= 7


@needs_field
def test_subtitles_fit_the_requested_size(node: Node) -> None:
    name = "01-printing-56s.ogg"
    body = (FIELD / name).read_bytes()
    whole = cues(node, name, body, max_line_width=0)
    for width, count, seconds in ((42, 2, 7.0), (24, 1, 3.0)):
        fields = {"max_line_width": width, "max_line_count": count, "max_cue_seconds": seconds}
        found = cues(node, name, body, **({} if width == 42 else fields))
        for begin, end, cue in found:
            assert end - begin <= seconds + 0.002
            assert len(cue.split("\n")) <= count
            assert max(map(len, cue.split("\n"))) <= width
        assert all(one[1] <= two[0] for one, two in pairwise(found)), found
        assert words(" ".join(cue for *_, cue in found)) == words(
            " ".join(cue for *_, cue in whole)
        )


def test_subtitles_have_short_cues_in_joined_speech(node: Node, jfk: degrade.Samples) -> None:
    found = cues(node, "joined.wav", wav(degrade.repeated(jfk, RATE, 4, 1.0)))
    assert_short_cues(found)
    assert words(" ".join(cue for _, _, cue in found)) == " ".join([JFK_WORDS] * 4)


def test_subtitles_have_the_same_cues_with_a_prompt(node: Node) -> None:
    body = JFK.read_bytes()
    plain = cues(node, JFK.name, body, max_line_width=0)
    prompted = cues(node, JFK.name, body, NOTES, max_line_width=0)
    assert [round(begin) for begin, _, _ in plain] == [0, 8]
    assert [round(end) for _, end, _ in plain] == [8, 11]
    assert len(prompted) == len(plain)
    for one, two in zip(plain, prompted, strict=True):
        assert one[:2] == pytest.approx(two[:2], abs=0.5)


@pytest.mark.parametrize("prompt", ["", NOTES, INSTRUCTION])
def test_words_have_lengths_and_keep_their_order(node: Node, prompt: str) -> None:
    reply = node.ask_file(JFK, prompt=prompt, word_timestamps=True)
    timed = [word for segment in reply["segments"] for word in segment["words"]]
    assert words(" ".join(word["text"] for word in timed)) == JFK_WORDS
    assert all(one["end"] <= two["start"] for one, two in pairwise(timed))
    empty = sum(word["start"] == word["end"] for word in timed)
    assert empty <= NO_LENGTH * len(timed), timed


# Repetition.


@needs_field
@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("03-rh_lamp44k_x2.flac", [LAMP] * 2),
        ("03-v2j_what_time_is_it_x3.flac", ["what time is it"] * 3),
        ("03-ps_goforward_x2.flac", ["go forward ten meters"] * 2),
    ],
)
def test_repeated_sentence_is_heard_each_time(node: Node, name: str, right: list[str]) -> None:
    assert heard(node, name).replace("10", "ten") == " ".join(right)


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("gap", [0.3, 0.9])
def test_repeated_words_are_heard_each_time(
    node: Node, ending: degrade.Samples, times: int, gap: float
) -> None:
    again = degrade.repeated(ending, RATE, times, gap)
    assert heard_samples(node, again) == " ".join([ENDING] * times)


# Prompts.


@needs_field
def test_prompt_neither_doubles_nor_changes_a_short_clip(node: Node) -> None:
    """The reduced encoder context mishears the first word, with the prompt as without; its letters
    depend on the engine's rounding."""
    said = heard(node, "04-weasels.wav", prompt=INSTRUCTION)
    plain = heard(node, "04-weasels.wav")
    assert said.split()[1:] == plain.split()[1:] == WEASELS.split()[1:]
    assert max(score([(WEASELS, text)]).wrong for text in (said, plain)) <= 1


@pytest.mark.parametrize(
    "prompt",
    [INSTRUCTION, NOTES, "Okay, so, um, let's get going.", "Ngozi, Bartholomew, Xu, Siobhan."],
)
def test_prompt_neither_doubles_nor_changes_the_ending(
    node: Node, ending: degrade.Samples, prompt: str
) -> None:
    assert heard_samples(node, ending, prompt=prompt) == ENDING


# Levels.


@needs_field
@pytest.mark.parametrize("name", ["05-quiet-55dB.wav", "05-quiet-60dB-float.wav"])
def test_quiet_recording_is_heard(node: Node, name: str) -> None:
    assert heard(node, name) == LAMP


@needs_field
def test_whisper_is_heard(node: Node) -> None:
    assert heard(node, "05-whispered.flac") == JFK_WORDS


# Channels.


@needs_field
def test_channels_of_opposite_phase_are_heard(node: Node) -> None:
    assert heard(node, "07-antiphase.wav") == LAMP


def test_channels_of_nearly_opposite_phase_are_heard(node: Node, ending: degrade.Samples) -> None:
    both = degrade.opposite_phase(ending) * np.array([1.0, 0.9], np.float32)
    assert heard_samples(node, both) == ENDING


def test_speech_beside_a_broken_channel_is_heard(node: Node, ending: degrade.Samples) -> None:
    broken = np.full_like(ending, np.nan)
    assert heard_samples(node, degrade.side_by_side(broken, ending), "FLOAT") == ENDING


# Range.


@needs_field
def test_float_samples_over_full_scale_are_not_clipped(node: Node) -> None:
    assert heard(node, "08-float-17dB-over.wav") == LAMP


def test_float_samples_a_little_over_full_scale_are_not_clipped(
    node: Node, ending: degrade.Samples
) -> None:
    assert heard_samples(node, degrade.gained(ending, 12.0), "FLOAT") == ENDING


# Noise around.


@needs_field
def test_noise_before_and_after_gives_no_markers(node: Node) -> None:
    assert heard(node, "14-noise-speech-noise.flac") == LAMP


@pytest.mark.parametrize("name", ["white", "fan", "traffic"])
def test_synthetic_noise_before_and_after_gives_no_text(
    node: Node, jfk: degrade.Samples, name: str
) -> None:
    noise = degrade.at_level(NOISES[name](4.0, RATE, np.random.default_rng(7)), RATE, -35.0)
    assert heard_samples(node, degrade.surrounded(jfk, RATE, noise, 4.0)) == JFK_WORDS


# Telephony, and files with unusual ends.

RAW = {"content_type": "audio/pcm", "sample_rate": 8000, "channels": 1}


@needs_field
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("15-mp3-in-wav.wav", {}),
        ("15-flac-in-ogg.oga", {}),
        ("15-wav49.wav", {}),
        ("15-ima-adpcm.wav", {}),
        ("15.ulaw", {**RAW, "content_encoding": "ulaw"}),
        ("15.gsm", {**RAW, "content_encoding": "gsm"}),
    ],
)
def test_telephony_is_heard(node: Node, name: str, fields: dict[str, Any]) -> None:
    reply = node.ask((FIELD / name).read_bytes(), **fields)
    # GSM makes "Liam" of "lamp" in one of the files.
    assert score([(LAMP, words(reply["text"]))]).wrong <= 1
    assert reply["truncated"] is False


@needs_field
def test_file_that_states_half_its_length_is_heard_whole(node: Node) -> None:
    reply = node.ask((FIELD / "15-length-in-samples.wav").read_bytes())
    assert reply["audio_seconds"] == pytest.approx(4.9, abs=0.05)
    assert reply["truncated"] is False
    assert reply["segments"][-1]["end"] > 4.0


def test_links_of_an_ogg_are_heard_each(node: Node, jfk: degrade.Samples) -> None:
    """A paused voice message: each link with another rate and other channels."""
    pause = round(8.1 * RATE)
    links = (
        (jfk[:pause], RATE, 1, "OPUS"),
        (np.asarray(soxr.resample(jfk[pause:], RATE, 44_100), np.float32), 44_100, 2, "VORBIS"),
    )
    body = io.BytesIO()
    for samples, rate, channels, codec in links:
        file = io.BytesIO()
        both = np.repeat(samples[:, None], channels, axis=1)
        soundfile.write(file, both, rate, format="OGG", subtype=codec)
        body.write(file.getvalue())
    reply = node.ask(body.getvalue())
    assert words(reply["text"]) == JFK_WORDS
    assert reply["audio_seconds"] == pytest.approx(11.0, abs=0.05)
    assert reply["truncated"] is False
