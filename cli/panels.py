"""The groups that a command's options are shown in."""

from __future__ import annotations

CHECKPOINT = "Checkpoint"
GRAPH = "Graph"
QUANTIZATION = "Quantization"
TOLERANCES = "Tolerances of parity"
MEASURING = "Measuring"
ENGINE = "Engine"
GENERAL = "General"
"""What every command takes; shown last."""


class Rare(str):
    """A group, for an option that only ``--help-all`` shows where a command has many.

    Args:
        group: One of the names above.
    """

    __slots__ = ()
