"""Markers of other sounds: their recognition, and the rest of segments and words without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes import RATE, FakeDetector, FakeEngine, Samples, body_of, hypothesis_of, tone
from node import SHARED, Node, needs_shared_audio, stopped_cleanly

from app.decoding.faults import fault
from app.decoding.hypothesis import Hypothesis
from app.decoding.markers import without_markers
from app.decoding.transcriber import DecodeOptions
from app.messages import RawFormat, Request, Segment, Word
from app.worker.job import Job, JobSettings, Transcription

FIELD = SHARED.parent / "field"


def stripped(text: str) -> str | None:
    """The text of a segment without markers; None if the segment is dropped."""
    left = without_markers([Segment(0.0, 5.0, text, 0.9)])
    return left[0].text if left else None


@pytest.mark.parametrize(
    "text",
    [
        "[Music]",
        "[MUSIC PLAYING]",
        "[ Music ]",
        "[BLANK_AUDIO]",
        "[ Silence ]",
        "(applause)",
        "(Applause.)",
        "(upbeat music)",
        "(speaking in foreign language)",
        "(crowd cheering) (whistle blowing)",
        "(door slams)",
        "*laughs*",
        "**claps**",
        "{coughs}",
        "[inaudible]...",
        "- [LAUGHTER]",
        ">> (laughing)",
        "[[music]]",
        "[MUSIC (PLAYING)]",
        '[MUSIC - SOME BAND, "SOME SONG"]',
        "[MUSIC PLAYING",
        "♪",
        "♪♪ ♫",
        "[♪♪♪]",
        "🎵 🎶",
        "(...)",
        "[_]",
    ],
)
def test_segment_of_markers_is_dropped(text: str) -> None:
    assert stripped(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "[Musik]",
        "*Musik*",
        "(Hintergrundmusik)",
        "[Applaus und Gelächter]",
        "(Musique)",
        "(rires de la foule)",
        "[Música]",
        "[música]",
        "(Aplausos)",
        "[risas]",
        "(applausi)",
        "[Muziek]",
        "[Muzyka]",
        "(śmiech)",
        "[Hudba]",
        "(Zene)",
        "[Müzik]",
        "[ALKIŞ]",
        "[музыка]",
        "(смех)",
        "[Музика]",
        "[Μουσική]",
        "（音楽）",
        "(音楽)",
        "(拍手）",
        "【拍手】",
        "［音楽］",
        "（笑）",
        "（ドアが閉まる音）",
        "[音乐]",
        "（掌声）",
        "[음악]",
        "(박수)",
        "[موسيقى]",
        "[מוזיקה]",
        "[संगीत]",
        "[เสียงเพลง]",
    ],
)
def test_markers_of_many_languages_are_dropped(text: str) -> None:
    assert stripped(text) is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[Music] Turn on the lamp.", "Turn on the lamp."),
        ("Turn on the lamp. [Music]", "Turn on the lamp."),
        ("[Music] Turn on the lamp. [Music]", "Turn on the lamp."),
        ("[Music] [Applause] (laughs) Yes. *claps* [Music]", "Yes."),
        ("Hello (laughs).", "Hello."),
        ("Hello. (laughs).", "Hello."),
        ("Hello! (laughs)", "Hello!"),
        ("[Music], hello", "hello"),
        ("[laughs]Hello", "Hello"),
        ("- [laughs] Hello", "Hello"),
        ("- Hello. - (laughs)", "- Hello."),
        (">> [LAUGHTER] >> Yes.", ">> Yes."),
        ("[DAVID] Hey there", "Hey there"),
        ("♪ La la la ♪", "La la la"),
        ("♪ One line ♪ ♪ another line ♪", "One line another line"),
        ("Hello [laughs", "Hello"),
        ("((laughs)) yes", "yes"),
        ("こんにちは（笑）", "こんにちは"),
        ("(音楽)こんにちは", "こんにちは"),
        ("[Musik] ¿Qué?", "¿Qué?"),
    ],
)
def test_markers_at_either_end_are_cut_off(text: str, left: str) -> None:
    assert stripped(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "Hello, my name is Bob.",
        "My sister (the younger one) came.",
        "We heard [Music] from afar",
        "She laughs (loudly) and sings.",
        "The United Nations (UN).",
        "We left early (the music was too loud).",
        "I think so (but I am not sure)",
        "It is Bonn (the former capital).",
        "(Not really.)",
        "(and I agree)",
        "(that is what he told me)",
        "(je ne sais pas)",
        "(das ist nicht wahr)",
        "（そうだと思う）",
        "(1945)",
        "[1] First point",
        "Press [Enter]",
        "f(x)",
        "(un)likely",
        "five * three * two",
        "I said *really*",
        "(laughs so I went home",
        "...",
        "No (laughs) no.",
    ],
)
def test_speech_in_brackets_is_kept(text: str) -> None:
    assert stripped(text) == text


def spelled(*texts: str, begin: float = 0.0) -> tuple[Word, ...]:
    """Words of half a second each."""
    return tuple(
        Word(begin + at / 2, begin + at / 2 + 0.5, text, 0.9) for at, text in enumerate(texts)
    )


def timed(text: str, words: Sequence[Word]) -> Segment:
    return Segment(0.0, 10.0, text, 0.9, tuple(words))


def test_words_of_markers_are_dropped_and_times_shrink() -> None:
    words = spelled("[MUSIC", "PLAYING]", "Turn", "on.", "(laughs)", begin=1.0)
    (left,) = without_markers([timed("[MUSIC PLAYING] Turn on. (laughs)", words)])
    assert left == Segment(2.0, 3.0, "Turn on.", 0.9, words[2:4])


def test_times_are_unchanged_at_an_end_without_a_marker() -> None:
    words = spelled("[Music]", "Turn", "on.", begin=1.0)
    (left,) = without_markers([timed("[Music] Turn on.", words)])
    assert (left.start, left.end) == (1.5, 10.0)


def test_music_note_within_a_word_keeps_the_word() -> None:
    words = spelled("♪Turn", "on♪")
    (left,) = without_markers([timed("♪Turn on♪", words)])
    assert left.words == (replace(words[0], text="Turn"), replace(words[1], text="on"))


def test_full_stop_after_a_marker_joins_the_previous_word() -> None:
    words = spelled("Turn", "on", "(laughs).")
    (left,) = without_markers([timed("Turn on (laughs).", words)])
    assert left.text == "Turn on."
    assert left.words == (words[0], replace(words[1], text="on."))
    assert left.end == 1.0


def test_marker_words_of_unspaced_scripts_are_dropped() -> None:
    words = spelled("（", "音", "楽", "）", "こん", "にちは")
    (left,) = without_markers([timed("（音楽）こんにちは", words)])
    assert left.words == words[4:]
    assert left.start == 2.0


def test_words_that_do_not_match_the_text_are_kept() -> None:
    words = spelled("[Music]", "na\ufffd", "\ufffdve")
    (left,) = without_markers([timed("[Music] naïve", words)])
    assert (left.text, left.words) == ("naïve", words)


def decoded(*segments: Segment, end: float = 10.0) -> Hypothesis:
    return replace(hypothesis_of("", 10.0), segments=segments, end=end)


def test_hypothesis_of_markers_only_is_empty() -> None:
    noise = decoded(Segment(0.0, 10.0, "[Music]", 0.9))
    assert (noise.text, noise.spoken) == ("", ())
    assert fault(noise, 10.0, True) == "empty"
    assert fault(noise, 10.0, False) is None


def run(engine: FakeEngine, keep_markers: bool = False) -> Transcription:
    """Run a request of 40 s in two windows."""
    gap = np.zeros(RATE, dtype=np.float32)
    samples = np.concatenate([tone(20 * RATE), gap, tone(19 * RATE)])
    body = body_of((samples * 32767).astype("<i2").tobytes())
    try:
        request = Request("r", body.size, RawFormat("s16", RATE, 1, "little"), "auto")
        limits = JobSettings(3600.0, 0.5, "auto", "", "fake", keep_markers)
        work = Transcription(Job(1, 1, request, body, 0.0), engine, FakeDetector(), limits)
        while not work.turn()[1]:
            pass
        work.close()
        return work
    finally:
        body.close()


@pytest.fixture
def engine() -> FakeEngine:
    """A marker in the first window, in a language of its own; German speech in the second."""
    music = replace(hypothesis_of("[Music]", 20.5), language="cy")
    speech = replace(hypothesis_of("(lacht) Guten Tag. [Musik]", 19.0), language="de")
    following = iter((music, speech))
    return FakeEngine(lambda _samples, _options: next(following))


def test_job_drops_markers(engine: FakeEngine) -> None:
    transcript = run(engine).transcript()
    assert transcript.text == "Guten Tag."
    assert [segment.text for segment in transcript.segments] == ["Guten Tag."]


def test_job_keeps_markers_if_set(engine: FakeEngine) -> None:
    transcript = run(engine, keep_markers=True).transcript()
    assert transcript.text == "[Music] (lacht) Guten Tag. [Musik]"


@pytest.mark.parametrize("keep", [False, True])
def test_marker_neither_determines_the_language_nor_is_carried(
    engine: FakeEngine, keep: bool
) -> None:
    transcript = run(engine, keep_markers=keep).transcript()
    assert transcript.language == "de"
    assert [options.prompt for _, options in engine.calls] == ["", ""]
    assert [options.language for _, options in engine.calls] == ["auto", "auto"]


def test_audio_after_a_marker_is_decoded_again() -> None:
    calls: list[float] = []

    def answer(samples: Samples, _options: DecodeOptions) -> Hypothesis:
        calls.append(len(samples) / RATE)
        if len(calls) == 1:
            return decoded(Segment(0.0, 8.0, "[Music]", 0.9), end=8.0)
        return hypothesis_of("hello", len(samples) / RATE)

    assert run(FakeEngine(answer)).transcript().text == "hello hello"
    assert calls[1:] == pytest.approx([29.8, 2.2], abs=0.5)


@pytest.mark.slow
@needs_shared_audio
@pytest.mark.parametrize("keep", [False, True])
def test_noise_around_speech_leaves_only_the_speech(keep: bool) -> None:
    clip = FIELD / "14-noise-speech-noise.flac"
    arguments = ["--keep-markers"] if keep else []
    with stopped_cleanly(Node("-m", "tiny.en", *arguments)) as node:
        reply = node.ask(clip.read_bytes(), word_timestamps=True)
    text = "Turn on the living room lamp."
    assert (text in reply["text"], reply["text"] == text) == (True, not keep)
    words = [word["text"] for segment in reply["segments"] for word in segment["words"]]
    assert " ".join(words) == reply["text"]
