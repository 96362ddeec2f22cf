from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from riformer_deploy.system.user_files import calibration_cache, user_folders


@pytest.mark.parametrize("moved", [False, True])
def test_each_is_where_its_library_looks_and_its_variable_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, moved: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    variables = [folder.variable for folder in user_folders()]
    for variable in variables:
        if moved:
            monkeypatch.setenv(variable, str(tmp_path / variable))
        else:
            monkeypatch.delenv(variable, raising=False)
    calibration_cache().mkdir(parents=True)
    found = {folder.variable: folder for folder in user_folders()}
    assert list(found) == variables
    assert (found["XDG_CACHE_HOME"].exists, found["TORCH_HOME"].exists) == (True, False)
    assert found["TORCH_HOME"].path == str(Path(torch.hub.get_dir()) / "checkpoints")
    inductor = Path(found["TORCHINDUCTOR_CACHE_DIR"].path)
    assert inductor == Path(cache_dir())
    assert all(Path(folder.path).is_relative_to(tmp_path) for folder in found.values()) or not moved
