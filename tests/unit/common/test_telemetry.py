from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from riformer_deploy.common import telemetry

_SCRIPT = """
import onnx
from riformer_deploy.common.dependencies import require
ort = require("onnxruntime")
value = lambda name: onnx.helper.make_tensor_value_info(name, 1, [1])
node = onnx.helper.make_node("Identity", ["x"], ["y"])
graph = onnx.helper.make_graph([node], "g", [value("x")], [value("y")])
model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 18)])
ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
require("openvino").Core()
import sys
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry
"""


def test_runtimes_leave_nothing_in_the_home_folder(tmp_path: Path, repository: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(repository)}
    subprocess.run(  # noqa: S603  # of this file
        [sys.executable, "-c", _SCRIPT], env=environment, check=True
    )
    assert list(tmp_path.iterdir()) == []


def test_whether_a_runtime_reports_is_told_with_its_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    assert telemetry.states() == {
        "ONNX Runtime": "off (ORT_DISABLE_TELEMETRY=1)",
        "OpenVINO": "off (its reporting package is not loaded)",
    }
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    assert telemetry.states() == {
        "ONNX Runtime": "as it is built (ORT_DISABLE_TELEMETRY=0)",
        "OpenVINO": "on: imported before riformer_deploy",
    }
