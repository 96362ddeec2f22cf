"""Sessions of latencies without measuring any."""

from __future__ import annotations

import numpy as np

from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.results import RESULT_SCHEMA, InputImages, LatencyResult, LatencySamples
from riformer_deploy.system.records import Machine
from tests.candidates import labelled

MACHINE = Machine(cpu="CPU", cores=2, memory_bytes=None, system="Linux", python="3.11", libraries={})


def series(name: str, batch: int, sha256: str) -> LatencySamples:
    """Five calls of one candidate."""
    times = (1.0, 1.1, 1.2, 1.3, 1.4)
    return LatencySamples(
        config=labelled(name),
        batch=batch,
        samples_ms=times,
        preparation_ms=1.0,
        artifact_sha256=sha256,
        warning=None,
        summary=summarize(np.array(times), batch),
    )


def session(
    *measured: LatencySamples, created: str = "2026-01-01T00:00:00+00:00", threads: int = 1
) -> LatencyResult:
    """These series as one session."""
    return LatencyResult(
        schema=RESULT_SCHEMA,
        kind="latency",
        created_utc=created,
        machine=MACHINE,
        inputs=InputImages(description="noise", image_size_px=(64, 48), batches=(1,), seed=0),
        threads=threads,
        rounds=5,
        repeats=1,
        samples=measured,
        skipped=(),
        process_peak_rss_bytes=1,
    )
