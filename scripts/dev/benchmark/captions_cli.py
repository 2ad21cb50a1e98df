"""The program behind scripts/dev/captions: words on a screen while they are spoken, in real time.

Recordings are played to the node as streams that ask for partial results, and to a peer that
decodes them again and again. A run takes as long as the audio.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmark import captions_peer, corpus
from benchmark.captions_figures import Caption, Figures, Lags, Shown, Speech, markdown
from benchmark.corpus import RATE, Clip
from benchmark.environment import PYTHON, ROOT, SetupError, peer_weights
from benchmark.live_cli import _EXPECTED, _machine, _progress, _spread
from benchmark.live_commands import speech_end, with_tail
from benchmark.live_player import Played, Session, play
from benchmark.live_servers import LiveNode, Usage
from benchmark.live_wire import NativeReader, chunks, native_stream
from benchmark.node import request

LOADS = ("alone", "four", "monologue")
_PACKET = 0.02
_TAIL_SECONDS = 1.5
_TOGETHER_SECONDS = 0.02


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except _EXPECTED as error:
        print(f"captions: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/dev/captions", description=__doc__)
    add = parser.add_argument
    add("--loads", default=",".join(LOADS), help="a comma-separated part of: %(default)s")
    add("--clips", type=int, default=1000, help="most recordings of the load alone (default: all)")
    add("--no-peer", action="store_true", help="measure the node alone")
    add("--seconds", type=float, default=600.0, help="length of the other loads (%(default)s)")
    add("--model", default="tiny.en", help="a catalogue name (default: tiny.en)")
    add("--language", default="en", help="code of the language (default: en)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each engine")
    add("--audio", type=Path, default=ROOT.parent / "shared" / "audio", help="folder with refs.tsv")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    loads = arguments.loads.split(",")
    if unknown := set(loads) - set(LOADS):
        raise SetupError(f"there is no load {', '.join(unknown)}; the loads are {', '.join(LOADS)}")
    weights = None if arguments.no_peer else peer_weights(arguments.model)
    if weights is None and not arguments.no_peer:
        raise SetupError(f"there are no CTranslate2 weights of {arguments.model}; use --no-peer")
    clips = [clip for clip in corpus.read(arguments.audio) if clip.group == "speech" and clip.text]
    options = ["--threads", str(arguments.threads), "--language", arguments.language]
    node = LiveNode(PYTHON, arguments.model, options)
    figures: list[Figures] = []
    lags: list[Lags] = []
    try:
        if "alone" in loads:
            short = [clip for clip in clips if clip.seconds <= corpus.SHORT_SECONDS]
            recordings = [recording(clip, node) for clip in _spread(short, arguments.clips)]
            figures.append(_alone(node, recordings))
            if weights is not None:
                decode = captions_peer.load(weights, arguments.threads, arguments.language)
                figures.append(_peer(recordings, decode))
        if "four" in loads:
            lags.append(_continuous("four streams", node, clips, 4, arguments.seconds))
        if "monologue" in loads:
            lags.append(_continuous("a monologue", node, clips, 1, arguments.seconds))
    finally:
        node.close()
    print(f"\n{_machine()}, {arguments.model}\n")
    print(markdown(figures, lags))
    return 0


Recording = tuple[str, np.ndarray, Speech]


def recording(clip: Clip, node: LiveNode) -> Recording:
    """Return the samples of a clip with a tail of noise, and what is said in it. The ends of the
    words are the node's own, from the whole file."""
    random = np.random.default_rng(list(clip.name.encode()))
    speech = corpus.samples(clip.path)
    samples = np.rint(np.clip(with_tail(speech, random, _TAIL_SECONDS), -1, 1) * 32767)
    whole = samples.astype("<i2")
    fields = {"content-type": "audio/pcm", "sample-rate": RATE, "channels": 1}
    fields["word-timestamps"] = True
    reply = request(node.native, whole.tobytes(), "s16", **fields).fields
    ends = [word["end"] for segment in reply["segments"] for word in segment.get("words", ())]
    end = speech_end(speech) or clip.seconds
    # The beginning is the end of the reversed recording.
    start = clip.seconds - (speech_end(speech[::-1].copy()) or clip.seconds)
    return clip.name, whole, Speech(max(0.0, start), end, tuple(ends), clip.text)


def _alone(node: LiveNode, recordings: Sequence[Recording]) -> Figures:
    _progress("alone: node")
    before = Usage(node)
    sessions = [_session(node, name, samples) for name, samples, _ in recordings]
    (played,) = play([sessions])
    audio = sum(len(samples) for _, samples, _ in recordings) / RATE
    found = [_caption(one, speech) for one, (_, _, speech) in zip(played, recordings, strict=True)]
    return Figures("alone", node.name, tuple(found), before.cpu() / audio)


def _peer(recordings: Sequence[Recording], decode: captions_peer.Decode) -> Figures:
    _progress(f"alone: {captions_peer.NAME}")
    captions_peer.caption("warm", recordings[0][1], recordings[0][2], decode)
    began = time.process_time()
    found = [
        captions_peer.caption(name, samples, said, decode) for name, samples, said in recordings
    ]
    audio = sum(len(samples) for _, samples, _ in recordings) / RATE
    cpu = (time.process_time() - began) / audio
    return Figures("alone", captions_peer.NAME, tuple(found), cpu)


def _continuous(
    name: str, node: LiveNode, clips: Sequence[Clip], count: int, seconds: float
) -> Lags:
    """Play read speech without a break to `count` streams with partial results."""
    _progress(f"{name} of {seconds:.0f} s")
    with tempfile.TemporaryDirectory(prefix="captions-") as folder:
        times = 1 + int(seconds / sum(clip.seconds for clip in clips))
        lanes = []
        for number in range(count):
            turned = list(clips[number::count]) + [
                clip for other in range(count) if other != number for clip in clips[other::count]
            ]
            joined = corpus.join(turned * times, seconds, f"lane-{number}", Path(folder))[0]
            samples = np.rint(corpus.samples(joined.path)[: int(seconds * RATE)] * 32767)
            lanes.append([_session(node, f"{name} {number}", samples.astype("<i2"), number)])
    before = Usage(node)
    played = [sessions[0] for sessions in play(lanes)]
    late = sorted(lag for one in played for lag in _lags(one))
    cpu = before.cpu() / (count * seconds)
    return Lags(name, tuple(lag for _, lag in late), cpu)


def _lags(played: Played) -> Iterator[tuple[float, float]]:
    """Yield the time of each final text, and how much later it came than the end of its speech. The
    segments of one utterance come together; the last one ends with it."""
    ends: dict[float, float] = {}
    for at, message in played.messages:
        if message["status"] == "segment":
            together = next((time for time in ends if at - time < _TOGETHER_SECONDS), at)
            ends[together] = message["segment"]["end"]
    for at, end in ends.items():
        yield at, at - played.began - end


def _session(node: LiveNode, name: str, samples: np.ndarray, number: int = 0) -> Session:
    packets = native_stream(chunks(samples, _PACKET), reply="partials")
    return Session(name, node.native, packets, NativeReader(), source=f"127.0.0.{2 + number}")


def _caption(played: Played, speech: Speech) -> Caption:
    """Read the replies of one stream; segments before a partial stay on the screen."""
    final: list[str] = []
    shown: list[Shown] = []
    last = 0.0
    for at, message in played.messages:
        now = at - played.began
        if message["status"] == "segment":
            final.append(message["segment"]["text"].strip())
            shown.append(Shown(now, " ".join(final)))
            last = now
        elif message["status"] == "partial":
            before = "".join(f"{text} " for text in final)
            shown.append(Shown(now, before + message["stable"], message["rest"]))
    return Caption(played.name, speech, tuple(shown), " ".join(final), last or played.answered)


if __name__ == "__main__":
    sys.exit(main())
