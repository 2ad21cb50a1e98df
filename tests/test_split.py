"""Channels that are transcribed separately: order, limits, cost, and their form in every output."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from fakes import (
    ENGLISH,
    RATE,
    FakeDetector,
    FakeEngine,
    Samples,
    body_of,
    encoded,
    hypothesis_of,
    transcript_of,
)
from fakes import Node as FakeNode
from node import JFK, Node, stopped_cleanly

from app.audio.stream import AudioError
from app.decoding.hypothesis import Hypothesis
from app.decoding.transcriber import DecodeOptions
from app.messages import RawFormat, Request, Segment, Transcript
from app.protocols.http.dialect import ReplyOptions, read
from app.protocols.http.form import FormError
from app.protocols.http.openai import OPENAI, delta
from app.protocols.http.replies import answer_of, rendered
from app.protocols.http.whisper_cpp import WHISPER_CPP
from app.protocols.model_names import ModelNames
from app.protocols.native.replies import reply_fields
from app.protocols.subtitles import srt, vtt
from app.requests.failures import unservable
from app.worker import job as job_module
from app.worker.job import Job, JobSettings, Transcription
from app.worker.split import SplitTranscription


def channels(*spoken: dict[float, tuple[float, float]], seconds: float = 60.0) -> Samples:
    """Tones on several channels, shape [n, channels], each with its hertz, begin and end."""
    columns = []
    for tones in spoken:
        column = np.zeros(round(seconds * RATE), dtype=np.float32)
        for hertz, (begin, end) in tones.items():
            at = np.arange(round(begin * RATE), round(end * RATE))
            column[at] = 0.5 * np.sin(2 * np.pi * hertz * at / RATE)
        columns.append(column)
    return np.stack(columns, axis=1)


def name_tone(samples: Samples, _options: DecodeOptions) -> Hypothesis:
    """An engine whose text is the loudest frequency of a window."""
    spectrum = np.abs(np.fft.rfft(samples))
    hertz = round(int(spectrum.argmax()) * RATE / len(samples) / 100) * 100
    return hypothesis_of(str(hertz), len(samples) / RATE)


CALL = channels({400: (2, 20), 600: (35, 50)}, {800: (10, 28), 1000: (45, 58)})
"""Two speakers, each with two windows of their own; both talk at 10 to 20 s and 45 to 50 s."""


def begin(
    engine: FakeEngine, data: bytes, raw: RawFormat | None = None, max_seconds: float = 3600.0
) -> SplitTranscription:
    request = Request("r", len(data), raw, channel_mode="split")
    job = Job(1, 1, request, body_of(data), 0.0)
    settings = JobSettings(max_seconds, 0.5, "en", "", "fake")
    return SplitTranscription(
        lambda channel: Transcription(job, engine, FakeDetector(), settings, None, channel)
    )


def run(work: SplitTranscription) -> tuple[list[list[Segment]], Transcript]:
    """Run all turns; return the segments of each turn, and the transcript."""
    turns = []
    for _ in range(1000):
        segments, done = work.turn()
        turns.append(segments)
        if done:
            work.close()
            return turns, work.transcript()
    pytest.fail("it never ends")


def said(segments: Any) -> list[tuple[int | None, str]]:
    return [(segment.channel, segment.text) for segment in segments]


def test_words_of_both_channels_are_in_order() -> None:
    turns, transcript = run(begin(FakeEngine(name_tone), encoded(CALL)))
    expected = [(1, "400"), (2, "800"), (1, "600"), (2, "1000")]
    assert said(transcript.segments) == expected
    assert transcript.text == "400 800 600 1000"
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts) == pytest.approx([2, 10, 35, 45], abs=1.0)
    # Segments are reported in the same order as soon as they are final.
    assert said(segment for turn in turns for segment in turn) == expected
    assert len([turn for turn in turns if turn]) > 1


def test_transcript_counts_both_channels() -> None:
    _, transcript = run(begin(FakeEngine(name_tone), encoded(CALL)))
    assert (transcript.audio_seconds, transcript.channels) == (60.0, 2)
    assert transcript.passes == 4


def test_seconds_left_include_all_channels() -> None:
    work = begin(FakeEngine(name_tone), encoded(CALL))
    left = [work.seconds_left]
    done = False
    while not done:
        done = work.turn()[1]
        left.append(work.seconds_left)
    work.close()
    assert left[0] == pytest.approx(120.0)
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0.0


def test_guessed_seconds_count_each_channel() -> None:
    data = bytes(10 * RATE * 2 * 2)
    raw = RawFormat("s16", RATE, 2, "little")
    for mode, seconds in (("auto", 10.0), ("split", 20.0)):
        request = Request("r", len(data), raw, channel_mode=mode)  # type: ignore[arg-type]
        assert Job(1, 1, request, body_of(data), 0.0).guessed_seconds == seconds


def test_silent_channel_needs_no_decode() -> None:
    engine = FakeEngine(name_tone)
    _, transcript = run(begin(engine, encoded(channels({}, {400: (2, 20)}, {}))))
    assert said(transcript.segments) == [(2, "400")]
    assert len(engine.calls) == 1


def test_mono_recording_is_split_into_one_channel() -> None:
    _, transcript = run(begin(FakeEngine(name_tone), encoded(channels({400: (2, 20)}))))
    assert said(transcript.segments) == [(1, "400")]


def test_channels_of_opposite_phase_are_both_transcribed() -> None:
    left = channels({400: (2, 20)})
    _, transcript = run(begin(FakeEngine(name_tone), encoded(np.hstack([left, -left]))))
    assert said(transcript.segments) == [(1, "400"), (2, "400")]


@pytest.mark.parametrize(("count", "code"), [(8, None), (9, "bad_field")])
def test_file_may_have_at_most_eight_channels(count: int, code: str | None) -> None:
    data = encoded(np.zeros((RATE, count), dtype=np.float32))
    try:
        run(begin(FakeEngine(name_tone), data))
        found = None
    except AudioError as error:
        found = error.failure.code
    assert found == code


@pytest.mark.parametrize(("count", "code"), [(8, None), (9, "bad_field")])
def test_raw_samples_may_have_at_most_eight_channels(count: int, code: str | None) -> None:
    raw = RawFormat("s16", RATE, count, "little")
    failure = unservable(Request("r", 3, raw, channel_mode="split"), ENGLISH)
    assert (None if failure is None else failure.code) == code
    assert unservable(Request("r", 3, raw), ENGLISH) is None


def test_maximum_length_counts_each_channel() -> None:
    assert run(begin(FakeEngine(name_tone), encoded(CALL), max_seconds=120.0))
    with pytest.raises(AudioError, match="each of its 2 channels") as caught:
        run(begin(FakeEngine(name_tone), encoded(CALL), max_seconds=119.0))
    assert caught.value.failure.code == "audio_too_long"


def test_only_one_channel_is_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    class Counted(job_module.AudioStream):
        def __init__(self, *arguments: Any) -> None:
            opened.append(1)
            assert sum(opened) == 1
            super().__init__(*arguments)

        def close(self) -> None:
            opened.append(-1)
            super().close()

    monkeypatch.setattr(job_module, "AudioStream", Counted)
    run(begin(FakeEngine(name_tone), encoded(np.tile(CALL, 4))))
    assert opened.count(1) == 8


def test_each_channel_has_its_own_prompt() -> None:
    engine = FakeEngine(name_tone)
    run(begin(engine, encoded(CALL)))
    assert [options.carried for _, options in engine.calls] == ["", "400", "", "800"]


# Ports and outputs.


def test_native_request_can_split_channels(node: FakeNode) -> None:
    engine = node.engine
    engine.answer = name_tone
    replies = node.ask(encoded(CALL), channel_mode="split", reply="segments", **FILE)
    segments = [reply["segment"] for reply in replies if reply["status"] == "segment"]
    assert {segment["channel"] for segment in segments} == {1, 2}
    starts = [segment["start"] for segment in segments]
    assert starts == sorted(starts)
    assert replies[-1]["segments"] == segments
    assert replies[-1]["audio_seconds"] == 60.0
    assert node.lines.wait_for(replies[-1]["id"])["segments"] == segments


def test_channels_are_mixed_by_default(node: FakeNode) -> None:
    for fields in ({}, {"channel_mode": "auto"}):
        (reply,) = node.ask(encoded(CALL), **FILE, **fields)
        assert not any("channel" in segment for segment in reply["segments"])


def test_unknown_channel_mode_is_rejected(node: FakeNode) -> None:
    for value in ("left", "", None, 2):
        (reply,) = node.ask(b"abc", channel_mode=value, **FILE)
        assert reply["error"]["code"] == "bad_field"
        assert reply["error"]["message"].startswith("channel-mode")


def test_too_many_channels_are_a_bad_field(node: FakeNode) -> None:
    data = encoded(np.zeros((RATE, 9), dtype=np.float32))
    (reply,) = node.ask(data, channel_mode="split", **FILE)
    assert reply["error"]["code"] == "bad_field"


FILE = {"content_type": "binary/wav", "content_encoding": "wav"}


def test_form_can_split_channels() -> None:
    served = ModelNames("fake", frozenset({"fake"}))

    def asked(*values: str) -> str:
        return read({"channel_mode": list(values)}, OPENAI, Request("r", 3), served)[0].channel_mode

    assert (asked("split"), asked("auto"), asked("")) == ("split", "auto", "auto")
    with pytest.raises(FormError, match="channel_mode"):
        asked("left")


def test_http_error_names_the_field() -> None:
    data = encoded(np.zeros((RATE, 9), dtype=np.float32))
    with pytest.raises(AudioError) as caught:
        run(begin(FakeEngine(name_tone), data))
    answer = answer_of(caught.value.failure, ReplyOptions(OPENAI, "transcribe"))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "bad_field", "channel_mode")


TWO = (
    Segment(0.0, 2.0, "Hello & welcome", 0.9, channel=1),
    Segment(1.0, 3.0, "Hi", 0.9, channel=2),
)


def test_subtitles_name_the_channel() -> None:
    assert srt(TWO) == (
        "1\n00:00:00,000 --> 00:00:02,000\nChannel 1: Hello & welcome\n\n"
        "2\n00:00:01,000 --> 00:00:03,000\nChannel 2: Hi\n\n"
    )
    assert vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n<v Channel 1>Hello &amp; welcome\n\n"
        "00:00:01.000 --> 00:00:03.000\n<v Channel 2>Hi\n\n"
    )


def test_every_json_names_the_channel() -> None:
    transcript = transcript_of("Hello & welcome Hi", segments=TWO)
    shown = [
        reply_fields("r", TWO[1])["segment"],
        reply_fields("r", transcript)["segments"][1],
        json.loads(delta(TWO[1], True).removeprefix(b"data: ")),
    ]
    for dialect in (OPENAI, WHISPER_CPP):
        options = ReplyOptions(dialect, "transcribe", "verbose_json")
        shown.append(json.loads(rendered(transcript, options)[1])["segments"][1])
    assert [fields["channel"] for fields in shown] == [2] * 5


@pytest.mark.slow
def test_simultaneous_speakers_are_both_transcribed() -> None:
    samples, rate = soundfile.read(JFK, dtype="float32", always_2d=True)
    voice = soxr.resample(samples.mean(axis=1), rate, RATE)
    delay = np.zeros(3 * RATE, dtype=np.float32)
    both = np.stack([np.concatenate([voice, delay]), np.concatenate([delay, voice])], axis=1)
    file = io.BytesIO()
    soundfile.write(file, both, RATE, format="FLAC")
    with stopped_cleanly(Node("-m", "tiny.en")) as node:
        reply = node.ask(file.getvalue(), channel_mode="split")
    assert reply["status"] == "ok"
    for channel in (1, 2):
        text = " ".join(s["text"] for s in reply["segments"] if s["channel"] == channel)
        assert "ask what you can do for your country" in text
    starts = [segment["start"] for segment in reply["segments"]]
    assert starts == sorted(starts)
    assert reply["audio_seconds"] == pytest.approx(14.0, abs=0.01)
