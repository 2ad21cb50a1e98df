"""Builds the node, runs it, and winds it down.

Main thread: settings, model, engine, then the loop. The other threads are started and joined here.
Exit codes: 0 after a drain, 1 if the node cannot start or one of its threads failed, 2 for wrong
settings, 128 + n when signal n came twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import structlog

from app import __version__, build
from app.audio.stream_detector import stream_detectors
from app.audio.vad import SileroDetector
from app.decoding import allocator
from app.decoding.transcriber import EngineError
from app.model_files import catalog
from app.monitoring.asked_models import AskedModels
from app.network.access_token import AccessToken
from app.network.mdns import Announcement
from app.output.lines import json_line, text_line
from app.output.stdout import StdoutSink
from app.protocols.model_names import ModelNames
from app.server import Limits, Reports
from app.settings import settings as config
from app.settings.settings import Settings
from app.startup import descriptors, engine_advice, engines, http_port, logs, model
from app.startup import protection as protecting
from app.startup import queue as startup_queue
from app.startup.engines import Engines
from app.startup.jobs import job_settings
from app.startup.ports import CannotListen, open_ports, warn_of_strangers
from app.startup.protection import Protection
from app.startup.systemd import Notifier, Watchdog
from app.storage.disk import Disk
from app.storage.journal import Journal, JournalError

if TYPE_CHECKING:
    from app.startup.web import Web

_log = structlog.get_logger("main")

_JOIN_SECONDS = 0.5
"""Time for each thread to end. The engine may be in an encoder pass, which cannot be interrupted;
its request has been answered by then."""

_LAST_PULLS_SECONDS = 3.0
"""Time for the queue thread, whose last requests for jobs end first. They end early in a drain, so
only a node without work takes so long."""


class _CannotStart(Exception):
    """The reason, for the user, and the exit code."""

    def __init__(self, reason: object, code: int = 1) -> None:
        super().__init__(str(reason))
        self.code = code


def main() -> int:
    descriptors.open_standard()
    _let_sigterm_end_it()
    settings = config.read(sys.argv[1:], os.environ)
    logs.configure(settings.log_verbose, settings.log_format == "json")
    descriptors.raise_limit()
    allocator.give_large_blocks_back()
    try:
        protected = protecting.protection(settings, os.environ)
        if not settings.spool_dir.is_dir():
            raise _CannotStart(
                f"{settings.spool_dir} does not exist; set a directory for large bodies"
                " with --spool-dir"
            )
        file = _obtain(settings)
        with contextlib.closing(_load(settings, file)) as loaded:
            _serve(settings, protected, file, loaded)
    except protecting.Unprotected as error:
        print(f"node-whisper: {error}", file=sys.stderr)
        return 2
    except _CannotStart as error:
        print(f"node-whisper: {error}", file=sys.stderr)
        return error.code


def _let_sigterm_end_it() -> None:
    """Let SIGTERM end the start, for example the download of a model. In a container without an
    init the node is process 1, to which the kernel sends only signals that have a handler."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _frame: _exit_at_once(128 + number))


def _obtain(settings: Settings) -> catalog.ModelFile:
    try:
        return model.obtain(settings)
    except catalog.CatalogError as error:
        raise _CannotStart(error) from error
    except KeyboardInterrupt as error:
        raise _CannotStart("interrupted", code=128 + signal.SIGINT) from error


def _load(settings: Settings, file: catalog.ModelFile) -> Engines:
    # Until the loop takes signals, so that no KeyboardInterrupt is raised in a callback of
    # whisper.cpp.
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
    try:
        plan = engines.plan(settings, file)
        # Imported late, because loading whisper.cpp takes a while and --help does not need it.
        from app.decoding.engine import Engine, system_info

        _log.debug("engine", system=system_info(), threads=plan.threads)
        context = settings.encoder_context
        loaded = engines.load(plan, lambda: Engine(file.path, file.name, plan.threads, context))
    except engines.TooManyEngines as error:
        raise _CannotStart(error, code=2) from error
    except (EngineError, OSError) as error:
        raise _CannotStart(error) from error
    if wrong := model.wrong_language(settings, loaded.info):
        loaded.close()
        raise _CannotStart(wrong, code=2)
    return loaded


def _serve(
    settings: Settings, protected: Protection, file: catalog.ModelFile, loaded: Engines
) -> NoReturn:
    """Build the node, open the ports, run, wind down."""
    info = loaded.info
    notifier = Notifier(os.environ)
    names = model.names_of(settings, info)
    web = http_port.web_of(settings, info, names, file, lambda: node.server.load, protected)
    parts = None
    if protected.broker is not None:
        new_thread = startup_queue.thread_maker(settings, protected.broker, info.name)
        parts = build.QueueParts(new_thread, settings.queue_places)
    node = _build(
        settings,
        protected.access_token,
        web,
        names,
        loaded,
        notifier,
        parts,
        lambda: node.server.shutdown.ask(),
    )
    server, worker = node.server, node.worker
    try:
        opened = open_ports(
            settings,
            access_token=protected.access_token,
            tls=protected.tls,
            web=web,
            model=info,
            names=names,
            listen=server.listen,
        )
    except CannotListen as error:
        raise _CannotStart(error) from error
    server.loop.handle_signals(signal.SIGTERM, signal.SIGINT)
    worker.start()
    node.disk.start()
    if not worker.wait_until_warm():
        raise _CannotStart("the engine failed on its first, empty window; the log says why")
    _log_listening(settings, loaded, opened.number, **opened.others)
    warn_of_strangers(settings, protected.access_token.open)
    if node.queue is not None:
        node.queue.start()
    notifier.ready(f"{info.name} on port {opened.number or 'off'}")
    Watchdog(server.loop, notifier, *worker.threads)
    if opened.announcement is not None:
        opened.announcement.start()
    server.run()
    notifier.close()
    _wind_down(node, opened.announcement)


def _build(
    settings: Settings,
    access_token: AccessToken,
    web: Web | None,
    names: ModelNames,
    loaded: Engines,
    notifier: Notifier,
    queue_parts: build.QueueParts | None,
    drain: Callable[[], None],
) -> build.Node:
    """Build the node as the settings say. `drain` asks it to drain, for use if stdout breaks: a
    signal could count as the second one."""
    info = loaded.info
    try:
        base = build.foundation(settings.spool_dir, settings.journal, settings.max_buffered_bytes)
    except JournalError as error:
        raise _CannotStart(error) from error
    limits = Limits(
        queue_size=settings.queue_size,
        max_buffered_bytes=settings.max_buffered_bytes,
        max_connections=settings.max_connections,
        drain_seconds=settings.drain_seconds,
        reject_when_full=settings.when_full == "reject",
        only_queue=settings.port is None,
    )
    return build.node(
        base,
        build.EngineParts(
            loaded.first,
            info,
            loaded.abort,
            SileroDetector,
            job_settings(settings, info),
            stream_detectors(),
            loaded.all[1:],
            loaded.threads,
            loaded.yielding,
        ),
        _sink(settings, base.disk, drain),
        limits,
        authorize=access_token.admits,
        reports=Reports() if web is None else Reports(web.reports, web.guarded),
        observers=(AskedModels(names), *(() if web is None else web.observers)),
        on_drain=lambda: notifier.stopping("finishing what was accepted"),
        queue=queue_parts,
        log_outcomes=logs.outcome_log(settings.log_format == "json"),
    )


def _wind_down(node: build.Node, announcement: Announcement | None) -> NoReturn:
    """End the threads, each within its time, and then the process."""
    killed_by, crashed = node.server.shutdown.killed_by, node.server.crashed
    if killed_by is not None:
        _close(node.journal, clean=True)
        _exit_at_once(128 + killed_by)
    if announcement is not None:
        # It takes half a second, during which the other threads end.
        announcement.stop()
    node.worker.stop()
    node.worker.join(_JOIN_SECONDS)
    if not node.disk.close(_JOIN_SECONDS):
        _log.error("the disk thread did not finish in time", lines_lost=node.sink.backlog)
    # After a crash the leases run out: the job that caused it must not seem to be handed back.
    if node.queue is not None and not node.queue.stop(_LAST_PULLS_SECONDS, abandon=crashed):
        _log.warning("the broker did not take everything; it will deliver those jobs again")
    _close(node.journal, clean=not crashed)
    if announcement is not None and not announcement.join(_JOIN_SECONDS):
        _log.warning("the mDNS announcement was not withdrawn in time")
    _exit_at_once(1 if crashed else 0)


def _sink(settings: Settings, disk: Disk, on_broken: Callable[[], None]) -> StdoutSink:
    """Make the sink: lines for a person on a terminal, JSON otherwise."""
    terminal = sys.stdout.isatty() if settings.output == "auto" else settings.output == "text"
    # JSON is UTF-8 in every locale; a terminal shows the characters that it can.
    encoding = sys.stdout.encoding if terminal else "utf-8"
    line = text_line if terminal else json_line
    return StdoutSink(disk, sys.stdout.fileno(), line, on_broken, encoding)


def _close(journal: Journal | None, clean: bool) -> None:
    if journal is not None:
        journal.close(clean)


def _log_listening(
    settings: Settings, loaded: Engines, port: int | None, **others: int | str
) -> None:
    from app.decoding import engine as decoding_engine

    if len(loaded.all) > 1:
        others["engines"] = len(loaded.all)
    build = decoding_engine.build()
    _log.info(
        "listening",
        host=settings.host,
        port=port,
        model=loaded.info.name,
        engine=build,
        threads=loaded.threads,
        version=__version__,
        **others,
    )
    engine_advice.report(build, decoding_engine.system_info())


def _exit_at_once(code: int) -> NoReturn:
    """End without tearing the interpreter down, which could crash: the engine's thread may still be
    in a pass, or release libgomp's team. Everything is written by now, and no later signal changes
    the exit code."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
