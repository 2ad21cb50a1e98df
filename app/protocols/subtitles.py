"""Segments as subtitles: SubRip and WebVTT, and as a table.

Pure functions. Times are seconds from the beginning of the audio. Each segment is one cue, in lines
if it was divided into cues (`app/decoding/cue_layout.py`); a cue of a split recording names its
channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.messages import Segment


def srt(segments: Iterable[Segment]) -> str:
    """Return SubRip: numbered cues, commas before the milliseconds."""
    cues = (
        f"{number}\n{_time(segment.start, ',')} --> {_time(segment.end, ',')}\n"
        f"{_speaker(segment, '{}: ')}{text}\n\n"
        for number, (segment, text) in enumerate(_shown(segments), 1)
    )
    return "".join(cues)


def vtt(segments: Iterable[Segment]) -> str:
    """Return WebVTT: a signature, full stops before the milliseconds, entities for & < >."""
    cues = (
        f"{_time(segment.start, '.')} --> {_time(segment.end, '.')}\n"
        f"{_speaker(segment, '<v {}>')}{_escaped(text)}\n\n"
        for segment, text in _shown(segments)
    )
    return "WEBVTT\n\n" + "".join(cues)


def tsv(segments: Iterable[Segment]) -> str:
    """Return tab-separated values: start and end in milliseconds, and the text."""
    lines = (
        f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{' '.join(text.split())}\n"
        for segment, text in _shown(segments)
    )
    return "start\tend\ttext\n" + "".join(lines)


def _shown(segments: Iterable[Segment]) -> Iterator[tuple[Segment, str]]:
    for segment in segments:
        # An empty line would end the cue.
        lines = (" ".join(line.split()) for line in segment.lines or (segment.text,))
        if text := "\n".join(line for line in lines if line):
            yield segment, text


def _speaker(segment: Segment, form: str) -> str:
    return "" if segment.channel is None else form.format(f"Channel {segment.channel}")


def _time(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(max(0, round(seconds * 1000)), 1000)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
