"""The loads of the live benchmark: which commands are spoken when, beside what else."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark import usage
from benchmark.corpus import RATE
from benchmark.live_commands import Command
from benchmark.live_figures import Latency, Result
from benchmark.live_player import Played, PlayError, Session, play
from benchmark.live_servers import LiveNode, Server, Usage
from benchmark.live_wire import NativeReader, Packet, WyomingReader, native_stream, wyoming
from benchmark.live_wire import chunks as in_chunks

HOME_ASSISTANT_SECONDS = 0.01
"""Length of Home Assistant's packets."""

CYCLE_SECONDS = 12.0
"""In a crowd each client speaks once in this time."""

_OTHER_CLIENT = "127.0.0.2"
_SAMPLE_SECONDS = 2.0
"""Time between two measurements of the memory."""

_STREAM_PACKET = 0.05


@dataclass(frozen=True)
class Load:
    """`lanes` clients speak at once. Packets have `packet` seconds of audio; with `burst` they come
    in bursts of so many seconds."""

    name: str
    lanes: int = 1
    packet: float = HOME_ASSISTANT_SECONDS
    burst: float = 0.0


class Memory:
    """Samples the resident memory of a process, on a thread, while it is entered."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._began = time.monotonic()
        self.samples: list[tuple[float, float]] = []

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS if self.samples else 0):
            now = usage.memory(self._pid).now
            self.samples.append((time.monotonic() - self._began, now))


def speak(load: Load, server: Server, commands: Sequence[Command], language: str) -> Result:
    """Speak the commands to a server, divided among the lanes of the load."""
    lanes = [
        [_session(one, server, load, language) for one in commands[number :: load.lanes]]
        for number in range(load.lanes)
    ]
    by_name = {one.name: one for one in commands}
    return _measure(load.name, server, lanes, by_name, None)


def beside_a_file(
    load: Load, server: Server, commands: Sequence[Command], file: Command, language: str
) -> Result:
    """Speak the commands while another client sends `file` at full speed, again and again."""
    over = threading.Event()
    faults: list[Exception] = []

    def send() -> None:
        try:
            while not over.is_set():
                ((played,),) = play([[_file_session(file, server, language)]])
                if played.answer["type"] != "transcript":
                    raise PlayError(f"{server.name} answered {played.answer}")
        except (PlayError, OSError) as error:
            faults.append(error)

    busy = threading.Thread(target=send)
    busy.start()
    # Until its first window is being decoded.
    time.sleep(2.0)
    try:
        result = speak(load, server, commands, language)
    finally:
        over.set()
        busy.join()
    if faults:
        raise faults[0]
    return result


def crowd(
    server: Server, commands: Sequence[Command], clients: int, seconds: float, language: str
) -> Result:
    """`clients` satellites speak a command every 12 s for `seconds`, at spread times."""

    def lane(number: int) -> Iterator[Session]:
        for cycle in itertools.count():
            one = commands[(number + cycle * clients) % len(commands)]
            begin = CYCLE_SECONDS * (number / clients + cycle)
            load = Load("crowd")
            yield _session(one, server, load, language, f"{one.name}/{number}/{cycle}", begin)

    by_name = {one.name: one for one in commands}
    lanes = [lane(number) for number in range(clients)]
    name = f"{clients} satellites, {seconds:.0f} s"
    return _measure(name, server, lanes, by_name, seconds)


def streams(node: LiveNode, commands: Sequence[Command], clients: int, seconds: float) -> Result:
    """`clients` native streams, each with a command every 12 s, at spread times. The latency is
    from the end of speech to the segment, and includes the pause that completes the utterance."""
    spoken: list[list[tuple[float, Command]]] = [[] for _ in range(clients)]

    def packets(number: int) -> Iterator[Packet]:
        random = np.random.default_rng(number)
        noise = np.rint(random.normal(0, 33, int(CYCLE_SECONDS * RATE))).astype("<i2")
        offset = CYCLE_SECONDS * number / clients
        begin = 0.0
        for cycle in itertools.count():
            if begin >= seconds:
                return
            one = commands[(number + cycle * clients) % len(commands)]
            lead = int((offset if cycle == 0 else 0.0) * RATE)
            samples = noise.copy()
            samples[: len(one.samples)] = one.samples
            whole = np.concatenate((noise[:lead], samples))
            spoken[number].append((begin + lead / RATE, one))
            for due, data in in_chunks(whole, _STREAM_PACKET):
                yield begin + due, data
            begin += len(whole) / RATE

    lanes = [
        [
            Session(
                f"stream {number}",
                node.native,
                native_stream(packets(number), reply="segments"),
                NativeReader(),
                # Three quarters of the places are for one client; these are two.
                source=f"127.0.0.{2 + number % 2}",
            )
        ]
        for number in range(clients)
    ]
    before = Usage(node)
    with Memory(node.pid) as memory:
        played = [sessions[0] for sessions in play(lanes)]
    latencies = [
        latency
        for one, utterances in zip(played, spoken, strict=True)
        for latency in stream_latencies(one, utterances)
    ]
    audio = sum(one.stopped - one.began for one in played)
    return Result(
        f"{clients} streams, {seconds:.0f} s",
        node.name,
        tuple(latencies),
        audio,
        before.cpu() / audio,
        max(one.delay for one in played),
        counts=before.counts(),
        memory=tuple(memory.samples),
        note="latencies include the end pause of 500 ms",
    )


def stream_latencies(
    played: Played, utterances: Sequence[tuple[float, Command]]
) -> Iterator[Latency]:
    """Yield the latency of the first segment after the end of each utterance. `utterances` are
    (begin in the stream, command)."""
    for begin, command in utterances:
        if command.speech_end is None:
            continue
        end = begin + command.speech_end
        for at, message in played.messages:
            segment = message.get("segment")
            # Segments of the first half of an utterance that a pause divided do not count.
            if segment is not None and begin < segment["end"] <= begin + CYCLE_SECONDS:
                late = at - played.began - end
                if late > 0:
                    yield Latency(late, late)
                    break


def _measure(
    name: str,
    server: Server,
    lanes: Sequence[Iterable[Session]],
    commands: dict[str, Command],
    seconds: float | None,
) -> Result:
    before = Usage(server)
    with Memory(server.pid) as memory:
        played = [one for lane in play(lanes, seconds=seconds) for one in lane]
    cpu = before.cpu()
    latencies, texts = [], []
    audio = 0.0
    for one in played:
        command = commands[one.name.split("/")[0]]
        if one.answer["type"] != "transcript":
            raise PlayError(f"{server.name} answered {one.answer}")
        spoken = command.speech_end
        after = None if spoken is None or command.is_early else one.answered - one.began - spoken
        latencies.append(Latency(one.answered - one.stopped, after))
        texts.append((command.name, command.text, str(one.answer["text"]).strip()))
        audio += command.seconds
    return Result(
        name,
        server.name,
        tuple(latencies),
        audio,
        cpu / audio,
        max(one.delay for one in played),
        early=sum(commands[one.name.split("/")[0]].is_early for one in played),
        texts=tuple(texts),
        counts=before.counts(),
        memory=tuple(memory.samples) if seconds is not None else (),
    )


def _session(
    command: Command,
    server: Server,
    load: Load,
    language: str,
    name: str | None = None,
    begin: float = 0.0,
) -> Session:
    packets = wyoming(command.samples, language, load.packet, load.burst)
    return Session(name or command.name, server.address, packets, WyomingReader(), not_before=begin)


def _file_session(file: Command, server: Server, language: str) -> Session:
    packets = ((0.0, data) for _, data in wyoming(file.samples, language, 0.1))
    return Session(file.name, server.address, packets, WyomingReader(), source=_OTHER_CLIENT)


def as_files(
    node: LiveNode, commands: Sequence[Command], progress: Callable[[str], None]
) -> tuple[dict[str, str], float]:
    """Transcribe the commands from whole bodies. Return the texts, and processor seconds per audio
    second."""
    before = Usage(node)
    texts = {}
    for number, one in enumerate(commands):
        texts[one.name] = node.as_file(one.samples).text
        progress(f"as files: {number + 1} of {len(commands)}")
    return texts, before.cpu() / sum(one.seconds for one in commands)
