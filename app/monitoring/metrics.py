"""Prometheus metrics: counters and histograms of outcomes, and the load at the time of a scrape.

The names follow Prometheus' conventions (base units, `_total` for counters) and are stable;
docs/http.md lists them. Labels are few and fixed, so that no client can add series. Imported only
if the HTTP port is on: prometheus_client takes 4 MiB. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.messages import Failure, Origin, Outcome, Report, Request, Streamed
from app.monitoring.queue_metrics import queue_families
from app.requests.load import Load

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format of `generate_latest`, which every Prometheus reads."""

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_AUDIO_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
_REAL_TIME_FACTOR = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5)
"""Above 1 the node is slower than speech."""

# Otherwise each counter has a second series with the time when it began.
disable_created_metrics()  # type: ignore[no-untyped-call]

OK = "ok"
"""The label of a transcript; a failure has its code."""


class Metrics:
    """Counts outcomes. `load` is called at every scrape; `model` and `version` label
    `node_whisper_info`."""

    def __init__(self, load: Callable[[], Load], model: str, version: str) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "node_whisper_requests",
            "Requests by protocol and outcome: ok, or the code of the error",
            ("protocol", "outcome"),
            registry=registry,
        )
        self._queued = Histogram(
            "node_whisper_queue_seconds",
            "From the last byte of a request to the beginning of the work on it",
            buckets=_SECONDS,
            registry=registry,
        )
        self._job_wait = Histogram(
            "node_whisper_job_wait_seconds",
            "From the submission of a job of the queue to the beginning of the work on it",
            buckets=_SECONDS,
            registry=registry,
        )
        self._audio = Histogram(
            "node_whisper_audio_seconds",
            "Length of the audio of transcribed requests",
            buckets=_AUDIO_SECONDS,
            registry=registry,
        )
        self._processing = Histogram(
            "node_whisper_processing_seconds",
            "Time spent on a transcribed request, without that spent on others in between",
            buckets=_SECONDS,
            registry=registry,
        )
        self._factor = Histogram(
            "node_whisper_real_time_factor",
            "Processing time divided by the length of the audio",
            buckets=_REAL_TIME_FACTOR,
            registry=registry,
        )
        self._second_passes = Counter(
            "node_whisper_second_passes",
            "Decodes that repeated a window because the first result was doubtful",
            registry=registry,
        )
        self._passes = Counter(
            "node_whisper_passes",
            "Decodes of all windows",
            registry=registry,
        )
        registry.register(_Now(load, model, version))
        # Resident memory, processor time, open descriptors, start time.
        ProcessCollector(registry=registry)

    def finished(self, origin: Origin, request: Request | None, outcome: Outcome) -> None:
        """Count one outcome."""
        code = outcome.code if isinstance(outcome, Failure) else OK
        self._requests.labels(origin.protocol, code).inc()
        if isinstance(outcome, Failure):
            return
        self._audio.observe(outcome.audio_seconds)
        self._processing.observe(outcome.processing_seconds)
        if outcome.audio_seconds > 0:
            self._factor.observe(outcome.processing_seconds / outcome.audio_seconds)
        if isinstance(outcome, Streamed):
            return
        self._queued.observe(outcome.queue_seconds)
        if origin.sent_at is not None:
            # The clocks of two machines may differ.
            waited = origin.received_at - origin.sent_at + outcome.queue_seconds
            self._job_wait.observe(max(0.0, waited))
        self._passes.inc(outcome.passes)
        self._second_passes.inc(outcome.second_passes)

    def report(self) -> Report:
        """Return all metrics."""
        return Report(True, CONTENT_TYPE, generate_latest(self._registry))


class _Now(Collector):
    """The gauges, and the worker's counts of live audio, which are read when they are collected."""

    def __init__(self, load: Callable[[], Load], model: str, version: str) -> None:
        self._load = load
        self._model = model
        self._version = version

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "node_whisper_info",
            "Always 1; the running model and version",
            labels=("model", "version"),
        )
        info.add_metric((self._model, self._version), 1)
        yield info
        load = self._load()
        for name, text, value in (
            ("ready", "1 if a further request would be admitted at once", load.ready),
            ("draining", "1 while the node is shutting down", load.draining),
            ("connections", "Open connections of all ports", load.connections),
            ("queue_size", "Requests that may be admitted and unfinished", load.places),
            ("queue_depth", "Requests admitted and unfinished", load.admitted),
            ("streams", "Open streams of live audio", load.streams),
            ("live_utterances", "Utterances of streams in progress", load.live.utterances),
            (
                "live_lag_seconds",
                "Most live audio of one request that has no result yet",
                load.live.lag_seconds,
            ),
            ("engines", "Engines of the node", load.engines),
            ("engines_decoding", "Engines that decode now", load.busy_engines),
            ("waiting_requests", "Requests that wait for a place", load.waiting),
            (
                "queued_audio_seconds",
                "Audio received and unfinished, estimated",
                load.queued_seconds,
            ),
            ("buffered_bytes", "Bytes of bodies and streams held or reserved", load.buffered_bytes),
            ("journal_entries", "Requests in the journal", load.journal_entries),
            ("quarantined_entries", "Requests in the journal's quarantine", load.quarantined),
        ):
            yield GaugeMetricFamily(f"node_whisper_{name}", text, value=float(value))
        for name, text, count in (
            ("windows_given_up", "Windows of files given up for live audio", load.given_up),
            ("live_finals", "Utterances of live audio that were decoded", load.live.finals),
            (
                "live_final_seconds",
                "Time from the end of these utterances to their text",
                load.live.final_seconds,
            ),
            ("live_partials", "Partial texts of open utterances", load.live.partials),
            (
                "live_partials_dropped",
                "Partial texts that were not sent because the client read too slowly",
                load.dropped_partials,
            ),
        ):
            yield CounterMetricFamily(f"node_whisper_{name}", text, value=float(count))
        speculations = CounterMetricFamily(
            "node_whisper_speculations",
            "Decodes of an utterance at a pause that ended it (used) or did not (wasted)",
            labels=("result",),
        )
        speculations.add_metric(("used",), load.live.speculations_used)
        speculations.add_metric(("wasted",), load.live.speculations_wasted)
        yield speculations
        if load.queue is not None:
            yield from queue_families(load.queue)
