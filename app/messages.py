"""The messages that layers and threads exchange.

Frozen dataclasses without behaviour. They cross threads (loop to worker and back), so their values
never change, and none of them holds a socket, a lock or a file. Times are in seconds, sizes in
bytes, rates in Hz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.limits import CueLayout
from app.live import LiveEvent, LiveOptions, LiveReport

ReplyMode = Literal["transcript", "segments", "accepted", "none"]
Task = Literal["transcribe", "translate"]
ChannelMode = Literal["auto", "split"]
SampleEncoding = Literal["s16", "s24", "s32", "f32", "u8", "ulaw", "alaw", "gsm", "g722"]

# The codes of `Failure` are part of the protocol (docs/protocol.md lists them): add, never rename.
BAD_HEADER = "bad_header"
MISSING_FIELD = "missing_field"
BAD_FIELD = "bad_field"
TOO_LARGE = "too_large"
INCOMPLETE = "incomplete"
UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
BAD_AUDIO = "bad_audio"
AUDIO_TOO_LONG = "audio_too_long"
BUSY = "busy"
TIMEOUT = "timeout"
CANCELLED = "cancelled"
NO_SPACE = "no_space"
SHUTTING_DOWN = "shutting_down"
INTERNAL = "internal"
UNAUTHORIZED = "unauthorized"
QUARANTINED = "quarantined"
JOURNAL_DAMAGED = "journal_damaged"
MODEL_NOT_FOUND = "model_not_found"


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why there is no transcript, and the seconds to wait before a retry. `unrecognised`
    if the bytes have no format that the node knows, so they may not be audio."""

    code: str
    message: str
    retry_after_seconds: float | None = None
    unrecognised: bool = False


_Sizes = dict[SampleEncoding, int]
SAMPLE_BYTES: _Sizes = {"s16": 2, "s24": 3, "s32": 4, "f32": 4, "u8": 1, "ulaw": 1, "alaw": 1}
"""Encodings with whole bytes a sample, which live audio can have: gsm and g722 have none."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """The format of raw samples (`audio/pcm`, `audio/l16`), which have no header."""

    encoding: SampleEncoding
    sample_rate: int
    channels: int
    byteorder: Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Request:
    """A validated header.

    `content_length` is the length of the body in bytes, or its upper bound; None if the client
    cannot declare it. `raw` is None for files. `language` is a lower-case code without region
    (`en`), `auto`, `multi` (detect it in each window), or None for the node's default. `languages`
    are the codes that detection chooses from; empty means the node's. `temperature` is the initial
    temperature, 0 to 1. `token` is the client's token. With the `channel_mode` `split` each channel
    is transcribed by itself. With `live` options it is a stream, never kept. With `cues` the
    segments are divided into cues of that size. `model` is the name that the client asked for;
    `ignored` are the names of its fields that the node does not read. With `detect_only` only the
    first window with words is decoded, for its language; with `logprobs` segments have tokens.
    """

    id: str
    content_length: int | None
    raw: RawFormat | None = None
    language: str | None = None
    languages: tuple[str, ...] = ()
    task: Task = "transcribe"
    prompt: str = ""
    word_timestamps: bool = False
    reply: ReplyMode = "transcript"
    keep_alive: bool = False
    temperature: float = 0.0
    token: str | None = field(default=None, repr=False)
    channel_mode: ChannelMode = "auto"
    live: LiveOptions | None = None
    cues: CueLayout | None = None
    model: str | None = None
    detect_only: bool = False
    ignored: tuple[str, ...] = ()
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a segment; `start` and `end` are seconds from the beginning of the audio."""

    start: float
    end: float
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class TextToken:
    """A token of the text, maybe a part of a character; `logprob` is a natural log."""

    data: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with its text; final once made. `confidence` is 0 to 1."""

    start: float
    end: float
    text: str
    confidence: float
    words: tuple[Word, ...] | None = None
    language: str | None = None
    """A code if the recording may hold several languages (`multi`), else None."""
    channel: int | None = None
    """The channel, counted from 1, if each was transcribed by itself (`split`), else None."""
    lines: tuple[str, ...] | None = None
    """The text in lines if the segment is a cue of a requested size, else None."""
    continues: bool = False
    """True if the text follows that of the cue before without a space."""
    tokens: tuple[TextToken, ...] | None = None
    """The tokens, which joined are the text, if they were requested, else None."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The outcome of a successful request. `model` is the full name (`tiny.en-q8_0`)."""

    text: str
    language: str | None
    """A code, with `multi` that of most of the speech; None if none was given and no speech was
    recognised."""
    language_probability: float | None
    """0 to 1 if the language was detected, else None."""
    segments: tuple[Segment, ...]
    audio_seconds: float
    queue_seconds: float
    processing_seconds: float
    model: str
    truncated: bool
    encoder_context: int
    """The largest encoder context of a window, in positions of 20 ms; 0 without speech."""
    passes: int
    """Number of decodes; larger than the number of windows if one was repeated."""
    second_passes: int = 0
    """Number of decodes that repeated a window."""
    channels: int = 1
    """Number of channels that were transcribed by themselves; each has `audio_seconds`."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """An utterance of a stream, final; `start` and `end` are those of its speech, in seconds."""

    start: float
    end: float
    segments: tuple[Segment, ...]
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Streamed:
    """The outcome of a stream whose utterances were sent as they became final. `segments` counts
    them. `truncated` is true if the node ended the stream before the client did."""

    language: str | None
    utterances: int
    segments: int
    audio_seconds: float
    processing_seconds: float
    model: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The whole body is received and queued; the reply to a request with `reply: accepted`."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a `Query`. `ok` is False if the node is not ready."""

    ok: bool
    content_type: str
    body: bytes


Outcome = Transcript | Streamed | Failure
Reply = Outcome | Accepted | Segment | Utterance | LiveReport | Report


# Events that a protocol makes of a client's bytes. `app/protocols/base.py` has their order.


@dataclass(frozen=True, slots=True)
class Begin:
    """A header was read; the protocol waits for `accept()` or `reject()`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Rejected:
    """A header was read that cannot be served; the length of its body is known."""

    id: str | None
    failure: Failure
    reply: ReplyMode
    keep_alive: bool
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class BodyData:
    """The next bytes of the accepted body."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class End:
    """The accepted body is complete. `request` replaces the one in `Begin` if data after the body
    (a form's later fields) changed it."""

    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """The accepted message turned out to be invalid; the protocol discards the rest of it."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Send:
    """The protocol answers this message itself (a ping, a page) and at once: between two messages
    with replies, or within one whose reply cannot have begun."""

    data: bytes = field(repr=False)
    keep_alive: bool = True


QueryKind = Literal["ready", "metrics", "status", "own"]  # own: may the protocol answer?


@dataclass(frozen=True, slots=True)
class Query:
    """A question about the node itself; the server answers with a `Report`."""

    kind: QueryKind
    keep_alive: bool = True
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The client asks to continue with another protocol, which its `token` must allow."""

    token: str | None = field(default=None, repr=False)


Event = Begin | Rejected | BodyData | End | Broken | Send | Query | Upgrade | LiveEvent


@dataclass(frozen=True, slots=True)
class Origin:
    """The source and time of a request, for stdout and for fairness."""

    peer: str
    received_at: float
    """Seconds since the epoch (UTC), when the header was complete."""
    protocol: str = "native"
    recovered: bool = False
    """True if the request was resumed from the journal of a process that had died."""
    delivered: int | None = None
    """For a job of the queue: how often it was delivered; above 1 it may have been done before."""
    sent_at: float | None = None
    """For a job of the queue: seconds since the epoch (UTC) when it was submitted, if known."""
