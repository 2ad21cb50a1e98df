"""Recordings of phones and browsers, decoded by FFmpeg in the child process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import RATE, FakeEngine, encoded, eventually, frame, pcm, text_or_code, tone
from media import KINDS, Decoded, clip, likeness, recorded
from test_audio import FORMATS

from app.audio.media import opener as opener_module
from app.audio.media import process
from app.audio.media.formats import DEMUXERS
from app.audio.media.opener import MediaOpener
from app.audio.sniff import READABLE
from app.audio.stream import AudioError, AudioStream
from app.storage.body import in_memory

FIELD = Path(__file__).resolve().parents[1].parent / "shared" / "field"
FRAGMENTS = {"movflags": "+frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000"}


@pytest.mark.parametrize("kind", KINDS)
def test_recording_of_each_kind_is_decoded(kind: str) -> None:
    decoded = Decoded(recorded(kind))
    assert likeness(decoded.samples, clip()) > 0.85
    assert len(decoded.samples) / RATE == pytest.approx(11.0, abs=0.1)
    assert decoded.channels == 1
    assert not decoded.truncated


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("m4a AAC", {"movflags": "+faststart"}),
        ("m4a AAC", FRAGMENTS),
        ("webm Opus", {"live": "1"}),
        ("mkv AAC", {"live": "1"}),
    ],
    ids=["index first", "fragmented", "webm without length", "mkv without length"],
)
def test_recording_of_each_layout_is_decoded(kind: str, options: dict[str, str]) -> None:
    data = recorded(kind, **options)
    if "movflags" in options:
        assert data.index(b"moov") < data.index(b"mdat")
    else:
        # By default the index follows the sound.
        assert Decoded(data).declared is None
    decoded = Decoded(data)
    assert likeness(decoded.samples, clip()) > 0.95
    assert not decoded.truncated


def test_recording_with_its_index_at_the_end_is_decoded() -> None:
    data = recorded("m4a AAC")
    assert data.index(b"mdat") < data.index(b"moov")
    assert likeness(Decoded(data).samples, clip()) > 0.99


@pytest.mark.parametrize("kind", ["mov", "mkv AAC", "MPEG-TS AAC", "AVI MP3"])
def test_picture_as_first_track_is_ignored(kind: str) -> None:
    decoded = Decoded(recorded(kind, pictures=True))
    assert likeness(decoded.samples, clip()) > 0.95


@pytest.mark.parametrize("kind", ["m4a AAC", "mkv AAC", "webm Opus"])
def test_default_track_of_several_is_chosen(kind: str) -> None:
    decoded = Decoded(recorded(kind, tracks=3, default=1))
    assert likeness(decoded.samples, clip()) > 0.95


def test_first_track_is_chosen_in_a_container_without_defaults() -> None:
    decoded = Decoded(recorded("MPEG-TS AAC", tracks=2, default=0))
    assert likeness(decoded.samples, clip()) > 0.95


def test_channels_arrive_apart() -> None:
    both = np.stack([clip(3.0), np.zeros_like(clip(3.0))], axis=1)
    data = recorded("m4a AAC", both)
    body = in_memory(data)
    heard = []
    for channel in (0, 1):
        stream = AudioStream(
            body.fileno(), body.size, None, 60.0, None, None, channel, MediaOpener().open
        )
        assert stream.channels == 2
        blocks = []
        while (block := stream.read()) is not None:
            blocks.append(block)
        stream.close()
        heard.append(np.concatenate(blocks))
    body.close()
    assert likeness(heard[0], clip(3.0)) > 0.95
    assert np.abs(heard[1]).max() < 0.05


def test_gap_in_the_timestamps_becomes_silence() -> None:
    for kind in ("m4a AAC", "webm Opus", "mkv AAC"):
        samples = Decoded(recorded(kind, gap=(5.0, 3.0))).samples
        assert len(samples) / RATE == pytest.approx(14.0, abs=0.1)
        assert np.abs(samples[int(5.2 * RATE) : int(7.8 * RATE)]).max() < 1e-6
        assert likeness(samples[8 * RATE :], clip()[5 * RATE :]) > 0.9


def test_sound_that_begins_after_the_picture_keeps_its_time() -> None:
    samples = Decoded(recorded("mkv AAC", pictures=True, gap=(0.0, 2.0))).samples
    assert np.abs(samples[: int(1.9 * RATE)]).max() < 1e-6
    assert likeness(samples[2 * RATE :], clip()) > 0.9


def test_jump_of_the_clock_beyond_the_recording_adds_nothing() -> None:
    samples = Decoded(recorded("webm Opus", gap=(5.0, 100_000.0), live="1")).samples
    assert len(samples) / RATE == pytest.approx(11.0, abs=0.1)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_cut_recording_is_truncated_or_rejected(kind: str) -> None:
    data = recorded(kind)
    decoded = Decoded(data[: len(data) * 6 // 10])
    if data[4:8] == b"ftyp":
        # Without its index the sound cannot be found.
        assert decoded.code == "bad_audio"
        assert "send the whole file" in decoded.message
    else:
        assert 5.0 < len(decoded.samples) / RATE < 7.5
        assert decoded.truncated


@pytest.mark.parametrize("options", [{"movflags": "+faststart"}, FRAGMENTS], ids=["index", "parts"])
def test_cut_recording_with_its_index_first_is_read_up_to_the_cut(options: dict[str, str]) -> None:
    data = recorded("m4a AAC", **options)
    decoded = Decoded(data[: len(data) * 6 // 10])
    assert 5.0 < len(decoded.samples) / RATE < 7.5
    assert decoded.truncated


def test_tags_in_another_encoding_do_no_harm() -> None:
    data = recorded("AVI PCM", tags={"title": "cafe"}).replace(b"cafe", b"caf\xe9")
    assert b"caf\xe9" in data
    assert not Decoded(data).code


def test_recording_without_sound_is_bad_audio() -> None:
    data = recorded("mov", pictures=True, tracks=0)
    decoded = Decoded(data)
    assert decoded.code == "bad_audio"
    assert "no track of sound" in decoded.message


def test_unknown_codec_is_named() -> None:
    data = recorded("mkv FLAC").replace(b"A_FLAC", b"A_QUAC")
    decoded = Decoded(data)
    assert decoded.code == "unsupported_media_type"
    assert "webm/Matroska" in decoded.message


def test_codec_that_changes_its_rate_and_channels_is_decoded() -> None:
    """Two recordings in one ADTS stream, as a broadcast changes to an advertisement."""
    other = np.stack([clip(3.0)] * 2, axis=1)
    mono, stereo = recorded("ADTS", clip(3.0)), recorded("ADTS", other)
    from media import Kind

    fast = recorded(Kind("adts", "aac", 48_000), clip(3.0))
    for data in (mono + stereo, stereo + mono, mono + fast):
        samples = Decoded(data).samples
        assert len(samples) / RATE == pytest.approx(6.1, abs=0.2)
        assert likeness(samples[3 * RATE :], clip(3.0)) > 0.9


# The limit of the audio's length.


def test_too_long_recording_is_rejected_by_its_header() -> None:
    decoded = Decoded(recorded("m4a AAC"), seconds=5.0)
    assert (decoded.code, decoded.blocks) == ("audio_too_long", [])


def test_too_long_recording_without_a_length_is_stopped_at_the_limit() -> None:
    decoded = Decoded(recorded("webm Opus", live="1"), seconds=5.0)
    assert decoded.code == "audio_too_long"
    assert 4.0 < sum(len(block) for block in decoded.blocks) / RATE <= 5.0


# Several recordings at one time.


def running(stream: AudioStream) -> int | None:
    return stream._source.pid  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("kind", ["m4a AAC", "webm Opus", "WMA", "ADTS", "AMR"])
def test_two_recordings_share_one_child(kind: str) -> None:
    """Each read of one recording ends the child of the other; none loses a sample."""
    data = recorded(kind, clip(5.0))
    alone = Decoded(data).samples
    opener = MediaOpener()
    bodies = [in_memory(data) for _ in range(2)]
    streams = [
        AudioStream(body.fileno(), body.size, None, 60.0, media=opener.open) for body in bodies
    ]
    heard: list[list[Any]] = [[], []]
    open_ends = {0, 1}
    while open_ends:
        for number in sorted(open_ends):
            block = streams[number].read()
            assert len([stream for stream in streams if running(stream)]) <= 1
            if block is None:
                open_ends.remove(number)
            else:
                heard[number].append(block)
    for stream, body in zip(streams, bodies, strict=True):
        stream.close()
        body.close()
    for blocks in heard:
        samples = np.concatenate(blocks)
        assert len(samples) == pytest.approx(len(alone), abs=RATE // 50)
        assert likeness(samples, alone) > 0.98


@pytest.mark.parametrize(("kind", "start"), [("webm Opus", 2.0), ("mkv AAC", 0.0)])
def test_silence_in_a_gap_is_not_repeated_by_the_next_child(kind: str, start: float) -> None:
    data = recorded(kind, clip(4.0), gap=(start, 3.0), pictures=start == 0.0)
    decoded = Decoded(data, before_read=lambda stream: stream._source.suspend())  # type: ignore[attr-defined]
    assert len(decoded.samples) == pytest.approx(7 * RATE, abs=RATE // 10)


def test_closed_recording_leaves_no_child() -> None:
    body = in_memory(recorded("m4a AAC"))
    stream = AudioStream(body.fileno(), body.size, None, 60.0, media=MediaOpener().open)
    pid = running(stream)
    assert pid is not None
    assert Path(f"/proc/{pid}").exists()
    stream.close()
    body.close()
    assert not Path(f"/proc/{pid}").exists()


def test_rejected_recording_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    start = process.Child.__init__

    def noted(self: process.Child, *arguments: Any) -> None:
        start(self, *arguments)
        started.append(self.pid)

    monkeypatch.setattr(process.Child, "__init__", noted)
    body = in_memory(recorded("m4a AAC"))
    with pytest.raises(AudioError, match="longer"):
        AudioStream(body.fileno(), body.size, None, 5.0, media=MediaOpener().open)
    body.close()
    (pid,) = started
    assert not Path(f"/proc/{pid}").exists()


# Files that libsndfile reads, and nodes without PyAV.


def never(*_arguments: object) -> Any:
    raise AssertionError("a file for libsndfile reached the child")


@pytest.mark.parametrize("kind", FORMATS)
def test_file_that_libsndfile_reads_never_reaches_the_child(kind: str) -> None:
    rate = 48_000 if kind == "Opus" else RATE
    body = in_memory(encoded(tone(rate, rate), rate, **FORMATS[kind]))
    stream = AudioStream(body.fileno(), body.size, None, 60.0, media=never)
    while stream.read() is not None:
        pass
    stream.close()
    body.close()


@pytest.mark.parametrize("kind", ["m4a AAC", "webm Opus", "CAF IMA4"])
def test_node_without_pyav_names_the_command(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(opener_module.importlib.util, "find_spec", lambda name: None)
    decoded = Decoded(recorded(kind))
    assert decoded.code == "unsupported_media_type"
    assert "python -m pip install -r requirements-media.txt" in decoded.message


def test_node_without_pyav_names_the_codec_of_an_ogg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener_module.importlib.util, "find_spec", lambda name: None)
    page = b"OggS\0\2" + bytes(8) + b"abcd" + bytes(8) + b"\1\120"
    decoded = Decoded(page + b"Speex   1.2".ljust(80, b"\0"))
    assert decoded.code == "unsupported_media_type"
    assert "Speex in Ogg" in decoded.message


@pytest.mark.parametrize("kind", ["m4a AAC", "CAF IMA4"])
def test_node_with_media_off_names_the_option(kind: str) -> None:
    body = in_memory(recorded(kind))
    with pytest.raises(AudioError, match="--media auto") as caught:
        AudioStream(body.fileno(), body.size, None, 60.0)
    body.close()
    assert caught.value.failure.code == "unsupported_media_type"


def test_rejected_file_is_told_what_the_node_reads() -> None:
    decoded = Decoded(b"MThd" + bytes(100))
    assert "recognised as MIDI" in decoded.message
    for name in READABLE | DEMUXERS.keys():
        assert name in decoded.message


# Through the node's own server and worker.


def upload(data: bytes, **fields: Any) -> bytes:
    header = {
        "byteorder": "little",
        "content-type": "audio/mp4",
        "content-encoding": "mp4",
        "content-length": len(data),
    }
    return frame({**header, **fields}, data)


def test_killed_child_fails_its_request_alone(make_node: Any) -> None:
    engine = FakeEngine()
    node = make_node(engine, media=MediaOpener().open)
    engine.hold()
    data = recorded("m4a AAC", np.tile(clip(), 6))
    with node.connect() as killed, node.connect() as other, node.connect() as later:
        killed.send(upload(data))
        engine.wait_for_calls(1)
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        other.request(pcm(RATE))
        engine.release()
        assert text_or_code(killed.reply()) == "bad_audio"
        assert text_or_code(other.reply()) == str(RATE)
        later.send(upload(recorded("webm Opus")))
        reply = later.reply()
        assert reply is not None
        assert reply["status"] == "ok"
    eventually(lambda: children() == [], "the end of the children")


def test_short_recording_does_not_wait_for_the_end_of_a_long_one(make_node: Any) -> None:
    engine = FakeEngine()
    node = make_node(engine, media=MediaOpener().open)
    engine.hold()
    with node.connect() as long, node.connect() as short:
        long.send(upload(recorded("m4a AAC", np.tile(clip(), 12))))
        engine.wait_for_calls(1)
        short.send(upload(recorded("webm Opus", clip(2.0))))
        eventually(lambda: len(node.jobs) == 2, "both requests")
        # One window of the long recording, then the only one of the short one.
        engine.step()
        engine.step()
        assert text_or_code(short.reply()) == str(2 * RATE)
        assert len(children()) <= 1
        engine.release()
        reply = long.reply()
        assert reply is not None
        assert sum(int(part) for part in reply["text"].split()) >= 12 * 11 * RATE
    eventually(lambda: children() == [], "the end of the children")


def test_cancelled_request_leaves_no_child(make_node: Any) -> None:
    engine = FakeEngine()
    node = make_node(engine, media=MediaOpener().open)
    engine.hold()
    client = node.connect()
    client.send(upload(recorded("m4a AAC", np.tile(clip(), 6))))
    engine.wait_for_calls(1)
    assert len(children()) == 1
    client.reset()
    eventually(lambda: node.server.load.connections == 0, "the reset")
    engine.release()
    eventually(lambda: children() == [], "the end of the child")


def children() -> list[int]:
    """The decoding children of this process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"app.audio.media.child" in command:
            found.append(int(status.parent.name))
    return found
