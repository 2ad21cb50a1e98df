"""What the rooms of the node say to one another.

Frozen dataclasses without behaviour. They cross threads (loop to worker and back), so nothing in
them may be changed after it was made, and none of them holds a socket, a lock or a file. Times are
seconds, sizes are bytes, rates are Hz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ReplyMode = Literal["transcript", "segments", "accepted", "none"]
Task = Literal["transcribe", "translate"]
ChannelMode = Literal["auto", "split"]
SampleEncoding = Literal["s16", "s24", "s32", "f32", "u8"]

# The codes of `Failure`. They are part of the protocol (docs/protocol.md lists when each is sent):
# add, never rename.
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
    """Why a request has no transcript: a stable code, a sentence, and when to try again."""

    code: str
    message: str
    retry_after_seconds: float | None = None


MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 384_000
"""Hz, of raw samples and of files. Below, no speech is left; above, no microphone records."""

MAX_CHANNELS = 64

MAX_SPLIT_CHANNELS = 8
"""With `split` every channel is decoded by itself."""

SAMPLE_BYTES: dict[SampleEncoding, int] = {"s16": 2, "s24": 3, "s32": 4, "f32": 4, "u8": 1}


@dataclass(frozen=True, slots=True)
class RawFormat:
    """How to read a body of raw samples (`audio/pcm`, `audio/l16`), which cannot say so itself."""

    encoding: SampleEncoding
    sample_rate: int
    channels: int
    byteorder: Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Request:
    """One message's header, validated.

    `content_length` is in bytes: the body's, or the most it can have; None where the peer cannot
    say it before the end. `language` is a lower-case code without region (`en`), `auto`, `multi`
    (detect it in each window), or None for the node's default; `languages` are the codes that
    detection chooses from, the node's where it is empty. With the `channel_mode` `split` each
    channel is transcribed by itself. `raw` is None where the bytes themselves
    say what they are. `temperature` is where decoding starts, 0 to 1; `token` what the peer showed
    to be let in.
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


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a segment; `start` and `end` are seconds from the beginning of the audio."""

    start: float
    end: float
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with its text; final once made. `confidence` is 0 to 1."""

    start: float
    end: float
    text: str
    confidence: float
    words: tuple[Word, ...] | None = None
    language: str | None = None
    """A code where the recording may hold several (`multi`)."""
    channel: int | None = None
    """Counted from 1, where each channel was transcribed by itself (`split`)."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """A request's outcome when all went well. `model` is the full name (`tiny.en-q8_0`)."""

    text: str
    language: str | None
    """A code, with `multi` that of most of the speech; None where no speech was heard and none was
    given."""
    language_probability: float | None
    """0 to 1 where the language was detected."""
    segments: tuple[Segment, ...]
    audio_seconds: float
    queue_seconds: float
    processing_seconds: float
    model: str
    truncated: bool
    encoder_context: int
    """The most encoder positions (20 ms each) that a window took; 0 where there was no speech."""
    passes: int
    """Decodes of all windows together; more than there were windows where one was repeated."""
    second_passes: int = 0
    """Those of them that repeated a window."""
    channels: int = 1
    """How many were transcribed by themselves; each has `audio_seconds`."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The whole body is in and queued; sent where `reply: accepted` asked for it."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a `Query` is answered with. `ok` is False where the honest answer is "not now"."""

    ok: bool
    content_type: str
    body: bytes


Outcome = Transcript | Failure
Reply = Transcript | Failure | Accepted | Segment | Report


# What a protocol makes of a peer's bytes. `app/protocols/base.py` says in which order they come.


@dataclass(frozen=True, slots=True)
class Begin:
    """A header was read; the protocol waits for `accept()` or `reject()` before it goes on."""

    request: Request


@dataclass(frozen=True, slots=True)
class Rejected:
    """A header was read whose body's length is known but which cannot be served."""

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
    """The accepted body is complete. `request` takes the place of the one in `Begin` where what
    stood behind the body (a form's later fields) changed it."""

    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """The accepted message cannot be served after all; the protocol discards the rest of it."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Send:
    """The protocol answers this message itself (a ping, a page), and at once: it comes between two
    messages that are answered, or within one whose reply cannot have begun."""

    data: bytes = field(repr=False)
    keep_alive: bool = True


QueryKind = Literal["ready", "metrics", "status"]


@dataclass(frozen=True, slots=True)
class Query:
    """The peer asks about the node itself; the server answers with a `Report`."""

    kind: QueryKind
    keep_alive: bool = True
    token: str | None = field(default=None, repr=False)


Event = Begin | Rejected | BodyData | End | Broken | Send | Query


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and when a request arrived: for stdout and for fairness, never for the log's text."""

    peer: str
    received_at: float
    """Seconds since the epoch (UTC), when the header was complete."""
    protocol: str = "native"
    recovered: bool = False
    """True where it came out of the journal after the process that had received it died."""


# Between loop and worker.


@dataclass(frozen=True, slots=True)
class Progress:
    """A window of job `job` is final and gave this segment."""

    job: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class Finished:
    """Job `job` has its outcome; nothing more will be said of it."""

    job: int
    outcome: Outcome


Completion = Progress | Finished
