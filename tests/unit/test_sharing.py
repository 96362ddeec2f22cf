from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from tests.sharing import Program, made_once, remembering

EXAMPLE = (torch.zeros(1, 2),)


@pytest.fixture
def calls() -> list[Any]:
    """The tracer at each call of the exporter."""
    return []


@pytest.fixture
def export(tmp_path: Path, calls: list[Any]) -> Callable[..., Program]:
    """An exporter whose graphs are numbered, remembered."""

    def real(*_: object, **__: object) -> Program:
        calls.append(sys.gettrace())
        graph = onnx.helper.make_graph([], str(len(calls)), [], [])
        return Program(model_proto=onnx.helper.make_model(graph))

    return remembering(real, tmp_path)


def test_the_same_model_in_the_same_way_is_exported_once_with_no_tracer(
    export: Callable[..., Program], calls: list[Any]
) -> None:
    torch.manual_seed(0)
    model, tracer = nn.Linear(2, 2), sys.gettrace()
    first, second = (export(model, EXAMPLE, opset_version=20).model_proto for _ in range(2))
    assert first == second
    assert calls == [None]
    assert sys.gettrace() is tracer


@pytest.mark.parametrize("change", ["weight", "attribute", "class", "option", "shape"])
def test_whatever_an_export_depends_on_makes_it_another(
    export: Callable[..., Program], calls: list[Any], change: str
) -> None:
    norm = nn.LayerNorm(2)
    model: nn.Module = nn.Sequential(nn.Linear(2, 2), norm)
    export(model, EXAMPLE, opset_version=20)
    if change == "weight":
        model.get_parameter("0.bias").data[0] += 1e-6
    elif change == "attribute":
        norm.eps = 1e-4
    elif change == "class":
        model = type("Other", (nn.Sequential,), {})(*model.children())
    example = (torch.zeros(3, 2),) if change == "shape" else EXAMPLE
    export(model, example, opset_version=21 if change == "option" else 20)
    assert len(calls) == 2


def test_what_failed_is_made_by_the_next_who_asks(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        made_once(tmp_path / "file", fail)
    path = made_once(tmp_path / "file", lambda path: path.write_text("made"))
    made_once(path, fail)
    assert path.read_text() == "made"
