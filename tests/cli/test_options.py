from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from riformer_deploy_cli import options

from riformer_deploy.common.enums import Group
from riformer_deploy.common.errors import OptionError


@pytest.mark.parametrize(
    ("asked", "groups"),
    [
        ("", (Group.TORCH, Group.ONNX, Group.OPENVINO, Group.GPU, Group.ENGINE)),
        ("compiled", tuple(Group)),
        ("torch", (Group.TORCH,)),
        ("onnx compiled", (Group.ONNX,)),
        ("torch onnx engine compiled", (*(Group.TORCH, Group.COMPILED, Group.ONNX), Group.GPU, Group.ENGINE)),
        ("engine", (Group.GPU, Group.ENGINE)),
        ("openvino", (Group.OPENVINO,)),
    ],
)
def test_a_command_line_chooses_groups_and_none_named_means_all(
    asked: str, groups: tuple[Group, ...]
) -> None:
    words: Callable[[str], bool] = asked.split().__contains__
    found = options.chosen_groups(
        torch=words("torch"),
        onnx=words("onnx"),
        openvino=words("openvino"),
        engine=words("engine"),
        compiled=words("compiled"),
    )
    assert found == groups


def test_the_last_argument_may_be_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    assert options.split_bundle(["a.png", str(tiny_bundle)]) == (("a.png",), tiny_bundle)
    assert options.split_bundle(["a.png", str(tmp_path)]) == (("a.png", str(tmp_path)), None)
    assert options.split_bundle(["a.png"], tiny_bundle) == (("a.png",), tiny_bundle)
    assert options.split_bundle(["a.png", str(tiny_bundle)], tiny_bundle) == (("a.png",), tiny_bundle)
    with pytest.raises(OptionError, match="no pictures are named"):
        options.split_bundle([str(tiny_bundle)])
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    with pytest.raises(OptionError, match="Two bundles"):
        options.split_bundle(["a.png", str(tiny_bundle)], other)
