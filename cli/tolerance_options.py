"""Options that change the tolerances of parity."""

from __future__ import annotations

from typing import Annotated

import typer

from .panels import TOLERANCES, Rare

Rtol = Annotated[
    float | None,
    typer.Option(
        help="Relative tolerance of outputs.", show_default="1e-4", rich_help_panel=Rare(TOLERANCES)
    ),
]
Atol = Annotated[
    float | None,
    typer.Option(
        help="Absolute tolerance of outputs.", show_default="1e-5", rich_help_panel=Rare(TOLERANCES)
    ),
]
SqnrTolerance = Annotated[
    float | None,
    typer.Option(
        help="Least SQNR of outputs, dB.",
        show_default="fp16 56, bf16 38, int8 30, fp8 25",
        rich_help_panel=Rare(TOLERANCES),
    ),
]
StageTolerance = Annotated[
    float | None,
    typer.Option(
        help="Largest relative L2 error of a stage.",
        show_default="fp32 1e-5, fp16 2e-3, bf16 1.6e-2, int8 5e-2, fp8 5.6e-2",
        rich_help_panel=Rare(TOLERANCES),
    ),
]
