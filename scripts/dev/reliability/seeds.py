"""Real messages and files that the fuzzer starts from, made with the node's own libraries."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Iterator

import numpy as np
import soundfile

from reliability.media_seeds import messages as messages_of_a_child
from reliability.media_seeds import recordings
from reliability.websocket_client import BINARY, CLOSE, PING, TEXT, frame, opening

# Every container and codec that docs/protocol.md lists, as libsndfile writes them.
_FILES = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "GSM610"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("OGG", "FLAC"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("W64", "PCM_16"),
]


def files() -> Iterator[bytes]:
    """Half a second of a tone with noise, mono and stereo, in every format, and Oggs joined."""
    oggs = []
    rng = np.random.default_rng(1)
    for rate, channels in ((16_000, 1), (48_000, 2)):
        wave = 0.3 * np.sin(np.arange(rate // 2) / 10)[:, None] + 0.02 * rng.standard_normal(
            (rate // 2, channels)
        )
        for kind, subtype in _FILES:
            if not soundfile.check_format(kind, subtype):
                continue
            with tempfile.TemporaryFile() as file:
                try:
                    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
                except soundfile.LibsndfileError:
                    continue  # GSM 6.10 has one channel
                file.seek(0)
                data = file.read()
                yield data
                if kind == "OGG":
                    oggs.append(data)
    yield b"".join(oggs)
    yield _g722_in_wav(rng.bytes(4000))


def _g722_in_wav(data: bytes) -> bytes:
    form = struct.pack("<HHIIHHH", 0x028F, 1, 16_000, 8000, 1, 4, 0)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def headers() -> Iterator[bytes]:
    """Headers of the native protocol: a minimal one, one with all fields, and invalid ones."""
    least = {
        "byteorder": "little",
        "content-type": "audio/flac",
        "content-encoding": "flac",
        "content-length": 4,
    }
    raw = {
        **least,
        "content-type": "audio/pcm",
        "content-encoding": "s16",
        "sample-rate": 16000,
        "channels": 1,
    }
    full = {
        **raw,
        "id": "a:b.c-1",
        "connection": "keep-alive",
        "reply": "segments",
        "language": "en-GB",
        "task": "translate",
        "prompt": "names",
        "word-timestamps": True,
        "token": "0123456789abcdef",
    }
    live = {name: value for name, value in full.items() if name != "content-length"}
    live["live"] = True
    invalid = ({**full, "reply": "none"}, {**least, "content-length": "4"}, {**full, "live": True})
    for fields in (least, raw, full, live, *invalid):
        yield json.dumps(fields).encode()
    yield b'{"content-length":1,"content-length":2}'
    yield b"[" * 1000


def messages() -> Iterator[bytes]:
    """Whole streams of the native protocol: one message, and several on one connection."""
    every = [
        struct.pack("!H", len(data)) + data + b"abcd" for data in headers() if len(data) < 65_536
    ]
    yield from every
    yield b"".join(every)
    stream = io.BytesIO()
    kept = json.dumps(
        {
            "byteorder": "little",
            "content-type": "audio/flac",
            "content-encoding": "flac",
            "content-length": 4,
            "connection": "keep-alive",
        }
    ).encode()
    for _ in range(3):
        stream.write(struct.pack("!H", len(kept)) + kept + b"abcd")
    yield stream.getvalue()
    live = json.loads(next(data for data in headers() if b'"live"' in data))
    head = json.dumps({**live, "task": "transcribe"}).encode()
    frames = struct.pack("!H", len(head)) + head + b"\0\3abc\0\1d"
    yield frames + b"\0\0" + stream.getvalue()
    yield frames + b"\xff\xff" + stream.getvalue()


def uploads() -> Iterator[bytes]:
    """HTTP requests: forms with and without a length, queries, several on one connection."""
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny.en\r\n'
        b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\nRIFF\r\n--\r\n--b--\r\n"
    )
    head = b"Host: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    post = b"POST /v1/audio/transcriptions HTTP/1.1\r\n" + head
    whole = post + b"Content-Length: %d\r\n\r\n" % len(form) + form
    yield whole + b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield post + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(form), form)
    yield b"POST /inference HTTP/1.0\r\n" + head + b"Content-Length: 9\r\n\r\n--b--\r\n\r\n"
    yield opening("/vosk?token=x", Sec_WebSocket_Protocol="vosk, node-whisper-token.eA") + frame(
        BINARY, bytes(64)
    )
    yield b"OPTIONS * HTTP/1.1\r\nHost: [::1]:1\r\nOrigin: null\r\n\r\nHEAD / HTTP/1.1\r\n\r\n"
    mail = b"preamble\r\n" + form.replace(b"--b\r\n", b"--b \t\r\n").replace(b"; ", b";\r\n ")
    old = post.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nExpect: x\r\n"
    yield old + b"Content-Length: %d\r\n\r\n%sepilogue\r\n" % (len(mail) + 8, mail)
    sizes = b"%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(form), form)
    absolute = post.replace(b" /", b" http://h/").replace(b"\r\n", b"\r\nIf-Match: *\r\n", 1)
    yield b"\r\n" + absolute + b"Transfer-Encoding: ,\r\n chunked\r\n\r\n" + sizes


def frames() -> Iterator[bytes]:
    """WebSocket messages for each dialogue. The mask is 0, so that the fuzzer sees the text."""
    plain = bytes(4)
    update = {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 16_000},
                    "transcription": {"model": "m", "language": "de", "prompt": "x"},
                    "turn_detection": {"type": "server_vad", "silence_duration_ms": 200},
                }
            },
        },
    }
    older = {
        "type": "transcription_session.update",
        "session": {"input_audio_format": "g711_ulaw", "turn_detection": None},
    }
    audio = {"type": "input_audio_buffer.append", "audio": "AAAA" * 40, "event_id": "e"}
    others = [{"type": f"input_audio_buffer.{verb}"} for verb in ("commit", "clear")]
    spoken = [
        frame(TEXT, json.dumps(event).encode(), mask=plain)
        for event in (update, audio, *others, older, audio, others[0])
    ]
    ends = frame(PING, b"x", mask=plain) + frame(CLOSE, b"\x03\xe8", mask=plain)
    for first in (b"r", b"o"):
        yield first + b"".join(spoken) + ends
    yield b"r" + frame(TEXT, b'{"type":', fin=False, mask=plain) + frame(0, b'"x"}', mask=plain)
    config = b'{"config": {"sample_rate": 16000, "phrase_list": ["a"], "max_alternatives": 1}}'
    samples = frame(BINARY, bytes(320), mask=plain)
    yield b"".join(
        (
            b"v",
            frame(TEXT, config, mask=plain),
            samples,
            frame(TEXT, b'{"reset": 1}', mask=plain),
            samples,
            frame(TEXT, b'{"eof": 1}', mask=plain),
        )
    )


def events() -> Iterator[bytes]:
    """Wyoming events: queries, and audio with its format in the line and after the line."""
    form = b'{"rate":16000,"width":2,"channels":1}'
    chunk = b'{"type":"audio-chunk","data_length":%d,"payload_length":4}\n%sabcd' % (
        len(form),
        form,
    )
    spoken = (
        b'{"type":"transcribe","data":{"name":"m","language":"en-US","context":{}}}\n'
        b'{"type":"audio-start","data":%s}\n' % form + chunk + b'{"type":"audio-stop"}\n'
    )
    yield b'{"type":"describe"}\n{"type":"ping","data":{"text":"x"}}\n'
    yield spoken
    yield spoken + spoken
    yield chunk + b'{"type":"no-such","data_length":2,"payload_length":1}\n{}x' + spoken


SEEDS = {
    "framed": messages,
    "header": headers,
    "http": uploads,
    "websocket": frames,
    "wyoming": events,
    "decode": files,
    "samples": files,
    "media": recordings,
    "wire": messages_of_a_child,
}

WORDS = (
    *("byteorder", "little", "big", "content-type", "content-encoding", "content-length", "id"),
    *("audio/pcm", "audio/l16", "s16", "s24", "s32", "f32", "u8", "sample-rate", "channels"),
    *("connection", "keep-alive", "close", "reply", "transcript", "segments", "accepted", "none"),
    *("language", "auto", "task", "translate", "prompt", "word-timestamps", "token", "true"),
    *("languages", "multi", "channel-mode", "split", "ulaw", "alaw", "gsm", "g722"),
    *("max-line-width", "max-line-count", "max-cue-seconds", "max_line_width", "OggS", "fmt "),
    *("false", "null", "NaN", "Infinity", "1e999", "-1", "99999999999999999999", "u0000"),
    *("POST ", "Host: ", "Transfer-Encoding: chunked", "Content-Length: ", "Expect: 100-continue"),
    *("multipart/form-data; boundary=", "--b", "form-data; name=", "HTTP/1.1", "Origin: ", "; "),
    *("describe", "audio-start", "audio-chunk", "audio-stop", "payload_length", "data_length"),
    *("input_audio_buffer.append", "input_audio_buffer.commit", "session.update", "turn_detection"),
    *("Upgrade: websocket", "Sec-WebSocket-Key: ", "audio/pcmu", "server_vad", "config", "eof"),
    *("RIFF", "WAVE", "fmt ", "data", "LIST", "RF64", "ds64", "fLaC", "OggS", "OpusHead", "ID3"),
    *(
        "ftyp",
        "moov",
        "mdat",
        "moof",
        "trak",
        "stsd",
        "stts",
        "stsz",
        "stco",
        "dref",
        "esds",
        "webm",
    ),
    *("FORM", "AIFF", "AIFC", "COMM", "SSND", ".snd", "caff", "desc", "vorbis", "fact", "junk"),
)
"""Keywords of the formats that the fuzzer may insert, because random bytes rarely match them."""
