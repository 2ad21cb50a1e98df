"""The messages of live audio, beside those in `app/messages.py`.

A live request is decoded while its audio arrives. Frozen dataclasses without behaviour. Times are
seconds from the first sample of the audio.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How the utterances of a stream are found, and what is reported of them.

    `end_pause` seconds without speech complete an utterance; with None only a `Commit` or the end
    of the audio does, beside the cuts of long audio. `threshold` is the detector's probability that
    counts as speech, None for the node's. `lead_in` seconds before the speech are kept. With
    `partials` the text of the open utterance is reported while it grows, with `reports_speech` its
    beginning and its end.
    """

    end_pause: float | None = 0.5
    threshold: float | None = None
    lead_in: float = 0.5
    partials: bool = False
    reports_speech: bool = False


# Events of a live request, beside its `Begin`, `BodyData` and `End`.


@dataclass(frozen=True, slots=True)
class Commit:
    """The client completes the open utterance; `Committed` answers it."""


@dataclass(frozen=True, slots=True)
class Clear:
    """The client drops the open utterance and the audio that was not decoded."""


@dataclass(frozen=True, slots=True)
class Configure:
    """The options of the utterances that begin from now on; None leaves a value as it is."""

    options: LiveOptions
    language: str | None = None
    prompt: str | None = None


LiveEvent = Commit | Clear | Configure


# Replies of a live request, beside `Utterance` and `Streamed` in `app/messages.py`.


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """An utterance began; `at` includes its lead-in."""

    at: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The open utterance ended; its `Utterance` follows, without segments if it had no words."""

    at: float


@dataclass(frozen=True, slots=True)
class Partial:
    """The text of the open utterance so far: `stable` and `rest`, which begins with its own space.
    `stable` only grows until the utterance is final; `rest` may change."""

    stable: str
    rest: str


@dataclass(frozen=True, slots=True)
class Committed:
    """All utterances before a `Commit` are reported; `audio_seconds` of audio preceded it."""

    audio_seconds: float


LiveReport = SpeechBegan | SpeechEnded | Partial | Committed
