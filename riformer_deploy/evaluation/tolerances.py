"""What an artifact may differ from the reference by: the one table that gates read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.evaluation.metric_records import Deviation
from riformer_deploy.model.architecture import MAPS


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Limits of one precision, against the reference in float64.

    Outputs are held to the elementwise tolerance, to the SQNR, or to both; None leaves a limit away.

    Attributes:
        rtol: Relative part of the elementwise tolerance on outputs.
        atol: Absolute part; an output passes if ``|difference| <= atol + rtol |reference|`` everywhere.
        min_sqnr_db: Least signal to quantisation noise of an output.
        stage_relative_l2: Largest relative L2 error of a stage's activations.
        stated: ``default`` for a row of :data:`TOLERANCES`, ``user`` if the command line changed it.
    """

    rtol: float | None = None
    atol: float | None = None
    min_sqnr_db: float | None = None
    stage_relative_l2: float
    stated: str = "default"

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be a finite number of at least 0, got {value}"
            for name, value in (
                ("rtol", self.rtol),
                ("atol", self.atol),
                ("min_sqnr_db", self.min_sqnr_db),
                ("stage_relative_l2", self.stage_relative_l2),
            )
            if value is not None and not 0 <= value < float("inf")
        ]
        if self.rtol is None and self.atol is None and self.min_sqnr_db is None:
            problems.append("outputs need a tolerance or a least SQNR")
        pair = self.elementwise
        if not problems and pair is not None and not any(pair):
            problems.append("rtol and atol cannot both be 0: float32 itself differs from the reference")
        if problems:
            raise OptionError("This is not a tolerance.", details=problems)

    @property
    def elementwise(self) -> tuple[float, float] | None:
        """Rtol and atol, or None where outputs are held to the SQNR alone."""
        if self.rtol is None and self.atol is None:
            return None
        return self.rtol or 0.0, self.atol or 0.0

    def with_changes(
        self,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        min_sqnr_db: float | None = None,
        stage_relative_l2: float | None = None,
    ) -> Tolerance:
        """This tolerance with some of its limits replaced, marked as stated by the user.

        A limit that the tolerance does not have stays away: a tolerance for float32 is none for int8.

        Raises:
            OptionError: A limit is negative or not finite.
        """
        asked = {
            "rtol": rtol,
            "atol": atol,
            "min_sqnr_db": min_sqnr_db,
            "stage_relative_l2": stage_relative_l2,
        }
        changes = {
            name: value
            for name, value in asked.items()
            if value is not None and getattr(self, name) is not None
        }
        if not changes:
            return self
        return dataclasses.replace(self, stated="user", **changes)


TOLERANCES: dict[Precision, Tolerance] = {
    # rtol and atol are the contract of RIFormer's deployment: what training form and deploy form agree
    # within. Float32 stages stay below 1e-6 on every published shape; ten times that is a defect.
    Precision.FP32: Tolerance(rtol=1e-4, atol=1e-5, stage_relative_l2=1e-5),
    # Half precision rounds to 2^-11, bfloat16 to 2^-8, once per stored activation; the noise of up to 48
    # blocks adds up to a few roundings. Measured figures are in benchmarks/results.
    Precision.FP16: Tolerance(min_sqnr_db=56, stage_relative_l2=2e-3),
    Precision.BF16: Tolerance(min_sqnr_db=38, stage_relative_l2=1.6e-2),
    # Eight bits leave 37 to 40 dB on a trained model; below 30 something is wrong, not merely rounded.
    Precision.INT8: Tolerance(min_sqnr_db=30, stage_relative_l2=5e-2),
    # Rounding a tensor to E4M3's 3 bits of mantissa leaves 31.6 dB whatever its scale, and the four roundings
    # of an MLP 25.6 dB where no residual stream dilutes them; 25 dB are a relative error of 5.6e-2. Measured:
    # 40 dB on a trained model, 28 to 31 on random weights of the published depths. A range of half of the
    # largest value leaves 24 to 25, one of a quarter 11.
    Precision.FP8: Tolerance(min_sqnr_db=25, stage_relative_l2=5.6e-2),
}
"""Limits by precision."""


def changed_tolerances(
    *,
    rtol: float | None = None,
    atol: float | None = None,
    min_sqnr_db: float | None = None,
    stage_relative_l2: float | None = None,
) -> dict[Precision, Tolerance]:
    """The table with some limits replaced in every row; None leaves a limit as it is.

    Raises:
        OptionError: A limit is negative or not finite.
    """
    return {
        precision: tolerance.with_changes(
            rtol=rtol, atol=atol, min_sqnr_db=min_sqnr_db, stage_relative_l2=stage_relative_l2
        )
        for precision, tolerance in TOLERANCES.items()
    }


def _tolerance_used(distance: Deviation, tolerance: Tolerance) -> float | None:
    if not distance.finite:
        return None
    shares = []
    if tolerance.elementwise is not None:
        shares.append(distance.elementwise_used)
    if tolerance.min_sqnr_db is not None:
        exact = 0.0 if distance.max_abs == 0 else None
        noise = distance.relative_l2
        shares.append(exact if noise is None else noise * 10 ** (tolerance.min_sqnr_db / 20))
    known = [share for share in shares if share is not None]
    return max(known) if len(known) == len(shares) else None


def stage_used(distance: Deviation, tolerance: Tolerance) -> float | None:
    """The share of the limit on stages that a map takes; None if it is not finite.

    Args:
        distance: Of the map. One of zeros has no relative error, and then nothing may differ.
        tolerance: The limits.
    """
    if not distance.finite:
        return None
    if distance.relative_l2 is None:
        return 0.0 if distance.max_abs == 0 else None
    return distance.relative_l2 / tolerance.stage_relative_l2


def output_used(name: str, distance: Deviation, tolerance: Tolerance) -> float | None:
    """The share of a tolerance that an output takes, the largest over its limits; None if not finite.

    Args:
        name: The output's; maps are held to the limit on stages.
        distance: Of the output.
        tolerance: The limits.
    """
    return (stage_used if name in MAPS else _tolerance_used)(distance, tolerance)
