from __future__ import annotations

import os
from pathlib import Path

import pytest

from riformer_deploy.common.utf8_path import utf8_path


@pytest.mark.parametrize("name", [b"caf\xc3\xa9.onnx", b"caf\xe9.onnx"])
def test_a_library_of_utf_8_gets_a_path_that_leads_to_the_file(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"abc")
    with utf8_path(path) as given:
        assert given.encode("utf-8").endswith(b".onnx")
        assert Path(given).read_bytes() == b"abc"
    assert path.read_bytes() == b"abc"
    assert Path(given).exists() == (given == str(path))
