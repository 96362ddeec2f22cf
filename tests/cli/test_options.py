from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from riformer_deploy_cli import options

from riformer_deploy.common.errors import OptionError


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


def test_a_checkpoint_is_its_file_and_what_looks_like_a_name_and_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.pth"
    assert options.chosen_checkpoint(str(path)) == path
    with pytest.raises(OptionError, match="Did you mean riformer-s12_in1k"):
        options.chosen_checkpoint("s13")
