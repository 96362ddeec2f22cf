"""What an artifact may differ from the reference by: the one table that gates read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from riformer_deploy.artifacts import Precision
from riformer_deploy.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one precision, against the reference in float64.

    Attributes:
        rtol: Relative part of the elementwise tolerance on outputs.
        atol: Absolute part; an output passes if ``|difference| <= atol + rtol |reference|`` everywhere.
        stage_relative_l2: Largest relative L2 error of a stage's activations.
        stated: ``default`` for a row of :data:`BUDGETS`, ``user`` if the command line changed it.
    """

    rtol: float
    atol: float
    stage_relative_l2: float
    stated: str = "default"

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "stage_relative_l2"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise OptionError(f"{name} must be a finite number of at least 0, got {value}.")
        if self.rtol == self.atol == 0:
            raise OptionError("rtol and atol cannot both be 0: float32 itself differs from the reference.")

    def with_changes(
        self, *, rtol: float | None = None, atol: float | None = None, stage_relative_l2: float | None = None
    ) -> Budget:
        """This budget with some limits replaced, marked as stated by the user.

        Raises:
            OptionError: A limit is negative or not finite.
        """
        asked = {"rtol": rtol, "atol": atol, "stage_relative_l2": stage_relative_l2}
        changes = {name: value for name, value in asked.items() if value is not None}
        if not changes:
            return self
        return dataclasses.replace(self, stated="user", **changes)


BUDGETS: dict[Precision, Budget] = {
    # rtol and atol are the contract of RIFormer's deployment: what training form and deploy form agree
    # within. Float32 stages stay below 1e-6 on every published shape; ten times that is a defect.
    Precision.FP32: Budget(rtol=1e-4, atol=1e-5, stage_relative_l2=1e-5),
}
"""Limits by precision."""


def changed_budgets(
    *, rtol: float | None = None, atol: float | None = None, stage_relative_l2: float | None = None
) -> dict[Precision, Budget]:
    """The table with some limits replaced in every row; None leaves a limit as it is.

    Raises:
        OptionError: A limit is negative or not finite.
    """
    return {
        precision: budget.with_changes(rtol=rtol, atol=atol, stage_relative_l2=stage_relative_l2)
        for precision, budget in BUDGETS.items()
    }
