"""Candidates that a test tells apart by a label."""

from __future__ import annotations

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.common.enums import Precision, RuntimeKind


def labelled(
    label: str, runtime: RuntimeKind = RuntimeKind.PYTORCH, precision: Precision = Precision.FP32
) -> CandidateConfig:
    return CandidateConfig(runtime=runtime, precision=precision, label=label)
