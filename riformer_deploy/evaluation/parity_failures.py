"""Parity that failed: why, in words, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from riformer_deploy.backends.graph_state import titled
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.evaluation.metric_records import Deviation
from riformer_deploy.evaluation.results import (
    CandidateParity,
    OutputParity,
    ParityResult,
    Status,
)
from riformer_deploy.evaluation.tolerances import Tolerance
from riformer_deploy.model.architecture import MAPS


def _output_failure(output: OutputParity, tolerance: Tolerance) -> str:
    """The figures of an output that are out, each with its limit."""
    distance = output.deviation
    if output.name in MAPS:
        return _map_failure(distance, tolerance)
    if not distance.finite:
        return "values that are not finite"
    reasons = []
    least = tolerance.min_sqnr_db
    if least is not None and distance.sqnr_db is not None and distance.sqnr_db < least:
        # Rounded down, so that 55.97 dB do not read as the 56 that are needed.
        reasons.append(f"SQNR {math.floor(distance.sqnr_db * 10) / 10:.1f} dB, at least {least:g} is needed")
    if tolerance.elementwise is not None and (
        distance.elementwise_used is None or distance.elementwise_used > 1
    ):
        rtol, atol = tolerance.elementwise
        times = "" if distance.elementwise_used is None else f", {distance.elementwise_used:.3g} times what"
        limit = f"{times or ', more than'} {atol:g} + {rtol:g} |reference| allows"
        reasons.append(f"|difference| up to {distance.max_abs:.2e}{limit}")
    if output.decisions is not None and output.decisions.decided_flips:
        count, images = output.decisions.decided_flips, output.decisions.images
        reasons.append(f"{count} of {images} images change their first class, 0 may by so clear a margin")
    return ", ".join(reasons) or "out of its limits"


def _map_failure(distance: Deviation, tolerance: Tolerance) -> str:
    """What is out of a map or a stage, with its limit."""
    if not distance.finite:
        return "values that are not finite"
    if distance.relative_l2 is None:
        return "the reference is 0 throughout, and it is not"
    return f"relative L2 {distance.relative_l2:.2e}, at most {tolerance.stage_relative_l2:g} is allowed"


def why_failed(candidate: CandidateParity) -> str:
    """A candidate that failed, with the file, every figure that is out and its limit, in one line.

    Args:
        candidate: Its status is ``failed``.
    """
    name = titled(candidate.name, candidate.graph)
    what = [
        f"{output.name}: {_output_failure(output, candidate.tolerance)}"
        for output in candidate.outputs
        if output.status is Status.FAILED
    ]
    what += [
        f"stage {stage.stage}: {_map_failure(stage.deviation, candidate.tolerance)}"
        for stage in candidate.stages
        if stage.status is Status.FAILED
    ]
    if candidate.first_bad_block is not None:
        what.append(f"first out at {candidate.first_bad_block}")
    where = f" ({candidate.file})" if candidate.file is not None else ""
    return f"{name}{where}, {'; '.join(what) or 'no output to compare'}"


def advice_on(result: ParityResult, lowerings: Sequence[LoweringConfig] = ()) -> tuple[str, ...]:
    """What to do about files that failed; nothing where none did.

    Args:
        result: A parity report.
        lowerings: Those of the graphs that it is about, where they were just made.
    """
    failed = [candidate for candidate in result.failed if candidate.judges_file]
    plain = [c for c in failed if (c.runtime, c.precision) == (RuntimeKind.PYTORCH, Precision.FP32)]
    drawn = {
        config.precision
        for config in lowerings
        if config.precision.is_quantized and config.calibration is not None and config.calibration.random
    }
    unreal = sorted({candidate.precision for candidate in failed} & drawn)
    height, width = result.inputs.image_size_px
    advice = []
    if plain:
        advice.append(
            f"{plain[0].name}, itself misses the tolerance at {height}x{width} px, so no file can hold it: "
            "float32 loses that much with these weights. Export at the size that they were trained on "
            "(--image-size); where that is this one, loosen --rtol, --atol or --stage-tolerance"
        )
    if unreal:
        advice.append(
            f"{' and '.join(unreal)} was calibrated on random images, whose ranges are not those of real "
            "ones: give --calibration FOLDER or FILE.npz with pictures like those to come, on which parity "
            "then runs, too. For timings alone, accept it with --sqnr-tolerance and --stage-tolerance"
        )
    elif failed and result.inputs.seed is not None:
        advice.append(
            "parity ran on synthetic images, which can be far from what the model was trained on; an export "
            "with --calibration FOLDER or FILE.npz gives it real ones"
        )
    return tuple(advice)
