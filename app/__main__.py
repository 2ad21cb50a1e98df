"""Builds the parts and runs them: the only place that knows them all.

Main thread: settings, model, engine, then the loop. The worker and the disk have threads of their
own, started here and joined here. Exit codes: 0 after a drain, 1 where the node cannot start or its
worker failed, 2 for wrong settings, 128 + n when signal n came twice.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import uuid
from dataclasses import replace
from typing import NoReturn

import structlog

from app import __version__, catalog, config
from app.decoding.transcriber import EngineError, ModelInfo
from app.disk.journal import Journal, JournalError
from app.disk.lines import json_line, text_line
from app.disk.spool import Spool
from app.disk.stdout import StdoutSink
from app.disk.thread import Disk
from app.job import Limits
from app.network.gate import Gate, GateError, reachable_by_others, read_token
from app.network.ports import Port
from app.network.tls import TlsError, server_context
from app.notify import Notifier, Watchdog
from app.protocols.framed import FramedProtocol
from app.server import Server
from app.serving.intake import Rules
from app.startup import cpus, http_port, logs, wyoming_port
from app.vad import SileroDetector
from app.worker import Worker

_log = structlog.get_logger("main")

_JOIN_SECONDS = 0.5
"""For each thread to end. The engine may be in an encoder pass, which cannot be interrupted and
whose outcome has been told by then."""


def main() -> int:
    settings = config.read(sys.argv[1:], os.environ)
    logs.configure(settings.log_verbose, settings.log_format == "json")
    _raise_descriptor_limit()
    try:
        gate = Gate(read_token(settings.token_file, os.environ))
        tls = server_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except (GateError, TlsError) as error:
        return _fail(str(error), code=2)

    def guarded(port: Port) -> Port:
        return replace(port, tls=tls, needs_token=not gate.open)

    if wrong := wyoming_port.fault(settings, protected=tls is not None or not gate.open):
        return _fail(wrong, code=2)
    if not settings.spool_dir.is_dir():
        return _fail(f"there is no {settings.spool_dir} for large bodies; name one by --spool-dir")
    try:
        model = _obtain(settings)
    except catalog.CatalogError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", code=128 + signal.SIGINT)
    disk = Disk(lambda: server.loop.wake())
    try:
        journal = None if settings.journal is None else Journal(settings.journal, disk)
    except JournalError as error:
        return _fail(str(error))
    # Until the loop takes signals: no KeyboardInterrupt in the middle of whisper.cpp's callbacks.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imported here because loading whisper.cpp takes a while: not for --help or a wrong flag.
    from app.engine import Engine, build, system_info

    threads = settings.threads or cpus.available_cpus()
    try:
        engine = Engine(model.path, model.name, threads, settings.encoder_context)
    except (EngineError, OSError) as error:
        return _fail(str(error))
    language = settings.language or ("auto" if engine.info.multilingual else "en")
    if wrong := _wrong_language(language, settings.language, engine.info):
        engine.close()
        return _fail(wrong, code=2)
    _log.debug("engine", system=system_info(), threads=threads)
    engine.warm_up()

    terminal = sys.stdout.isatty() if settings.output == "auto" else settings.output == "text"
    sink = StdoutSink(
        disk,
        sys.stdout.fileno(),
        text_line if terminal else json_line,
        # A drain, not a signal, which could be the second one.
        lambda: server.drain_soon(),
        # JSON is UTF-8 whatever the locale; a terminal shows what it can.
        sys.stdout.encoding if terminal else "utf-8",
    )
    notifier = Notifier(os.environ)
    web = http_port.web_of(settings, engine.info, model, lambda: server.load)
    server = Server(
        model=engine.info,
        spool=_spool(settings, disk, journal),
        disk=disk,
        journal=journal,
        sink=sink,
        rules=Rules(gate.admits, settings.when_full == "reject"),
        queue_size=settings.queue_size,
        max_buffered_bytes=settings.max_buffered_bytes,
        max_connections=settings.max_connections,
        drain_seconds=settings.drain_seconds,
        abort=engine.abort,
        on_drain=lambda: notifier.stopping("finishing what was accepted"),
        reports=web.reports if web else None,
        guarded=web.guarded if web else frozenset(),
        observers=web.observers if web else (),
    )
    limits = Limits(
        max_seconds=settings.max_audio_seconds,
        vad_threshold=settings.vad_threshold,
        language=language,
        prompt=settings.prompt,
        model=engine.info.name,
    )
    mark = journal.mark.set if journal is not None else lambda _name: None
    worker = Worker(engine, SileroDetector, limits, server.loop.wake, mark)
    server.attach(worker)
    try:
        port = server.listen(guarded(_native(settings)))
    except (OSError, UnicodeError) as error:
        engine.close()
        return _fail(_cannot_listen(settings.host, settings.port, "--port", error))
    addresses = {}
    if web is not None:
        http = guarded(http_port.http_port(settings, web))
        try:
            if (number := http_port.listen(settings, http, server.listen)) is not None:
                addresses["http"] = http_port.address(http, number)
        except (OSError, UnicodeError) as error:
            engine.close()
            return _fail(_cannot_listen(settings.host, http.number, "--http-port", error))
    announcement = None
    numbers = {}
    if (wyoming := wyoming_port.wyoming_port(settings, engine.info)) is not None:
        try:
            numbers["wyoming_port"] = server.listen(wyoming)
        except (OSError, UnicodeError) as error:
            engine.close()
            return _fail(_cannot_listen(settings.host, wyoming.number, "--wyoming-port", error))
        announcement = wyoming_port.announcement(settings, numbers["wyoming_port"])
    server.loop.handle_signals(signal.SIGTERM, signal.SIGINT)
    worker.start()
    disk.start()
    _log.info(
        "listening",
        host=settings.host,
        port=port,
        model=engine.info.name,
        engine=build(),
        threads=threads,
        version=__version__,
        **numbers,
        **addresses,
    )
    _warn_of_strangers(settings, gate.open)
    notifier.ready(f"{engine.info.name} on port {port}")
    Watchdog(server.loop, notifier, worker)
    if announcement is not None:
        announcement.start()
    server.run()

    notifier.close()
    if server.killed_by is not None:
        _close(journal, clean=True)
        _exit_at_once(128 + server.killed_by)
    if announcement is not None:
        # It takes half a second, in which the others end.
        announcement.stop()
    worker.stop()
    ended = worker.join(_JOIN_SECONDS)
    if not disk.close(_JOIN_SECONDS):
        _log.error("not everything was written in time", lines_lost=sink.backlog)
    _close(journal, clean=not server.crashed)
    if announcement is not None and not announcement.join(_JOIN_SECONDS):
        _log.warning("the announcement was not taken back in time")
    status = 1 if server.crashed else 0
    if not ended:
        # The engine is deep in a pass; tearing the interpreter down around it would crash.
        _exit_at_once(status)
    engine.close()
    return status


def _native(settings: config.Settings) -> Port:
    def new_protocol() -> FramedProtocol:
        return FramedProtocol(settings.max_message_bytes, lambda: uuid.uuid4().hex)

    return Port("native", settings.host, settings.port, new_protocol)


def _warn_of_strangers(settings: config.Settings, no_token: bool) -> None:
    if not reachable_by_others(settings.host):
        return
    if no_token and settings.tls_client_ca is None:
        _log.warning(
            "whoever reaches this address can use the node: see --token-file and --tls-client-ca",
            host=settings.host,
        )
    if settings.tls_cert is None:
        _log.warning(
            "audio and text can be read and changed on their way: --tls-cert encrypts them",
            host=settings.host,
        )


def _spool(settings: config.Settings, disk: Disk, journal: Journal | None) -> Spool:
    """In a journal's own directory a large body can stay where it is."""
    if journal is None:
        return Spool(settings.spool_dir, disk)
    return Spool(journal.scratch, disk, named=True)


def _close(journal: Journal | None, clean: bool) -> None:
    if journal is not None:
        journal.close(clean)


def _obtain(settings: config.Settings) -> catalog.ModelFile:
    directories = [config.MODELS_DIR]
    if settings.models_dir is not None:
        directories.append(settings.models_dir)
    progress = _show_progress if sys.stderr.isatty() else None
    return catalog.obtain(settings.model, directories, offline=settings.offline, progress=progress)


def _wrong_language(language: str, asked: str | None, model: ModelInfo) -> str | None:
    if asked == "auto" and not model.multilingual:
        return f"--language auto: {model.name} knows English only"
    if language != "auto" and language not in model.languages:
        return f"--language {language}: {model.name} does not know it"
    return None


def _raise_descriptor_limit() -> None:
    """A connection is a descriptor and so is a body: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cannot_listen(host: str, port: int, option: str, error: OSError | UnicodeError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    advice = {
        errno.EADDRINUSE: f"is another node running? {option} takes another, 0 a free one",
        errno.EACCES: f"ports under 1024 are for root; {option} takes another",
    }.get(number or 0, "--host takes an address of this machine, or 0.0.0.0 for all")
    reason = getattr(error, "strerror", None) or "that is no host name"
    return f"cannot listen on {host} port {port}: {reason}; {advice}"


def _show_progress(done: int, total: int | None) -> None:
    """A model on its way, in place, on a terminal."""
    size = "" if total is None else f" of {total >> 20}"
    end = "\n" if done == total else ""
    print(f"\rmodel: {done >> 20}{size} MiB", end=end, file=sys.stderr, flush=True)


def _fail(message: str, code: int = 1) -> int:
    print(f"node-whisper: {message}", file=sys.stderr)
    return code


def _exit_at_once(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
