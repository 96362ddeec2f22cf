from __future__ import annotations

import pytest
from riformer_deploy_cli.tables.build import print_build

from riformer_deploy.api.build import BuildReport
from tests.manifests import engine_of


def test_it_fits_80_columns_and_breaks_no_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    engine = engine_of()
    print_build(BuildReport(bundle="digits", engines=(engine,), warnings=()))
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert table
    assert max(map(len, table)) <= 80
    assert any(engine.file.path in line for line in table)
    assert any(line.startswith(f"{engine.file.path}: TensorRT") for line in lines)
