from __future__ import annotations

import pytest

from riformer_deploy.backends.graph_state import GraphState, titled, worst

CAPTURED, CAPTURABLE, NOT_CAPTURABLE = GraphState


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ((), None),
        ((CAPTURED, CAPTURED), CAPTURED),
        ((CAPTURABLE,), CAPTURABLE),
        ((CAPTURABLE, NOT_CAPTURABLE, CAPTURABLE), NOT_CAPTURABLE),
        ((CAPTURABLE, CAPTURED), CAPTURABLE),
    ],
)
def test_one_shape_that_is_no_graph_decides(states: tuple[GraphState, ...], found: GraphState | None) -> None:
    assert worst(states) is found


@pytest.mark.parametrize("graph", [None, *GraphState], ids=str)
def test_only_what_is_no_graph_is_called_otherwise(graph: GraphState | None) -> None:
    assert (titled("a, CUDA graph", graph) == "a, CUDA graph") == (graph is not NOT_CAPTURABLE)
