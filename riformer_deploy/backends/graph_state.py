"""Whether a CUDA graph that was asked for is one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class GraphState(StrEnum):
    """What is known of an engine's CUDA graph."""

    CAPTURED = "captured"
    """We captured it, and launch it."""
    CAPTURABLE = "capturable"
    """TensorRT-RTX captures and replays by itself and shows no graph; it says that it can here, and was run
    often enough to do so."""
    NOT_CAPTURABLE = "not capturable"
    """TensorRT-RTX says that it cannot: it launches kernel by kernel, without a word."""


def worst(states: Iterable[GraphState]) -> GraphState | None:
    """What is true of all of them; None where there are none.

    Args:
        states: Of several shapes.
    """
    return max(states, key=list(GraphState).index, default=None)


def titled(name: str, graph: GraphState | None) -> str:
    """What tables call a candidate: one that was to be a CUDA graph and is none does not pass as one.

    Args:
        name: The candidate's.
        graph: None where no graph was asked for.
    """
    return f"{name} (NOT captured: runs plain)" if graph is GraphState.NOT_CAPTURABLE else name
