"""The metrics of the queue, read from the queue thread's counts when they are collected.

Loop thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from app.queue.events import Counts


def queue_families(counts: Counts) -> Iterator[Metric]:
    """Return the metrics of a node that takes jobs from a broker."""
    connected = float(counts.connected)
    yield GaugeMetricFamily("node_whisper_broker_connected", "1 or 0", value=connected)
    # Before the first answer, the time since the node began without a connection.
    since = time.monotonic() - max(counts.answered_at, counts.started_at)
    text = "Seconds since the broker last answered a request for a job"
    yield GaugeMetricFamily("node_whisper_broker_silent_seconds", text, value=since)
    held = GaugeMetricFamily(
        "node_whisper_jobs_held", "Jobs of the queue without an acknowledgement", labels=("class",)
    )
    for job_class, number in counts.held.items():
        held.add_metric((job_class,), number)
    yield held
    for name, text, count in (
        ("jobs_delivered", "Deliveries of jobs to this node", counts.deliveries),
        ("jobs_redelivered", "Deliveries that were not a job's first", counts.redeliveries),
        ("jobs_handed_back", "Jobs left to other nodes", counts.handed_back),
        ("jobs_quarantined", "Jobs moved to the dead ones", counts.quarantined),
        ("job_audio_bytes", "Bytes of audio read from objects", counts.fetched_bytes),
        ("result_retries", "Failed attempts to store a result", counts.result_retries),
        ("duplicate_results", "Results that the broker had already", counts.duplicate_results),
    ):
        yield CounterMetricFamily(f"node_whisper_{name}", text, value=float(count))
