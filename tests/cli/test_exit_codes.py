"""Every kind of error reaches the shell as its own exit code, for a real bad input of its kind."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from torch import Tensor

from riformer_deploy.common.errors import RIFormerDeployError

Run = Callable[..., CompletedProcess[str]]
Write = Callable[..., Path]
State = dict[str, Tensor]


def _missing(tmp_path: Path, _write: Write, _state: State) -> Path:
    return tmp_path / "absent.pth"


def _empty(tmp_path: Path, _write: Write, _state: State) -> Path:
    (tmp_path / "empty.pth").touch()
    return tmp_path / "empty.pth"


def _garbage(tmp_path: Path, _write: Write, _state: State) -> Path:
    (tmp_path / "garbage.pth").write_bytes(bytes(range(256)) * 8)
    return tmp_path / "garbage.pth"


def _truncated(_path: Path, write: Write, _state: State) -> Path:
    path = write()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _unsafe(_path: Path, write: Write, _state: State) -> Path:
    return write(hook=os.system)


def _incomplete(_path: Path, write: Write, state: State) -> Path:
    del state["backbone.norm6.weight"]
    return write(state)


def _nan(_path: Path, write: Write, state: State) -> Path:
    state["head.fc.bias"][3] = float("nan")
    return write(state)


def _poolformer(_path: Path, write: Write, state: State) -> Path:
    return write({key: value for key, value in state.items() if "token_mixer" not in key})


Case = tuple[Callable[[Path, Write, State], Path], int, str, str]

BAD: list[Case] = [
    (_missing, 10, "CheckpointUnreadableError", "No such file"),
    (_empty, 10, "CheckpointUnreadableError", "is empty"),
    (_garbage, 10, "CheckpointUnreadableError", "is not a PyTorch checkpoint"),
    (_truncated, 10, "CheckpointUnreadableError", "is damaged"),
    (_unsafe, 11, "CheckpointUnsafeError", f"{os.name}.system"),
    (_incomplete, 12, "CheckpointKeysError", "missing: backbone.norm6.weight"),
    (_nan, 13, "CheckpointValuesError", "head.fc.bias: 1 of 7 values"),
    (_poolformer, 14, "NotRIFormerError", "is not a RIFormer"),
]
LONG = "n" * 300
IDS = [case[0].__name__.strip("_") for case in BAD]


@pytest.mark.parametrize("command", ["export", "fuse", "inspect"])
@pytest.mark.parametrize("case", BAD, ids=IDS)
def test_a_bad_checkpoint_ends_each_command_with_its_own_code_and_writes_nothing(
    cli: Run,
    tmp_path: Path,
    write_checkpoint: Write,
    tiny_state: State,
    command: str,
    case: Case,
) -> None:
    make, code, kind, said = case
    if (make, command) == (_missing, "inspect"):  # which does not know yet what the file would be
        said = "There is no file"
    path = make(tmp_path, write_checkpoint, tiny_state)
    before = sorted(tmp_path.iterdir())
    output = () if command == "inspect" else ("-o", tmp_path / "output")
    ran = cli(command, path, *output, "--json")
    assert ran.returncode == code
    told = json.loads(ran.stdout)
    assert set(told) == {"error"}
    assert set(told["error"]) == {"kind", "exit_code", "message"}
    assert (told["error"]["kind"], told["error"]["exit_code"]) == (kind, code)
    assert said in told["error"]["message"]
    assert path.name in told["error"]["message"]
    assert told["error"]["message"] in ran.stderr
    assert "Traceback" not in ran.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_all_wrong_keys_are_listed_at_once(cli: Run, write_checkpoint: Write, tiny_state: State) -> None:
    wrong = dict(tiny_state)
    for index in range(2):
        del wrong[f"backbone.network.4.{index}.layer_scale_1"]
    wrong["backbone.network.4.0.surprise"] = torch.zeros(1)
    wrong["backbone.network.6.0.mlp.fc2.bias"] = torch.zeros(5)
    wrong["head.fc.weight"] = torch.zeros(7, 3)
    ran = cli("inspect", write_checkpoint(wrong))
    assert ran.returncode == 12
    assert ran.stdout == ""
    listed = {line.strip() for line in ran.stderr.splitlines() if line.startswith("  - ")}
    assert listed == {
        "- missing: backbone.network.4.0.layer_scale_1 (24,)",
        "- missing: backbone.network.4.1.layer_scale_1 (24,)",
        "- unexpected: backbone.network.4.0.surprise",
        "- shape: backbone.network.6.0.mlp.fc2.bias is (5,), expected (32,)",
        "- shape: head.fc.weight is (7, 3), expected (7, 32)",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--variant", "riformer-s12_in1k"), "layers: (1, 1, 2, 1), but (2, 2, 6, 2) was asked for"),
        (("--num-classes", "1000"), "classes: 7, but 1000 were asked for"),
        (("--weights", "raw"), "holds one set of weights"),
        (("--weights", "averaged"), "holds one set of weights"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_weights_that_contradict_the_command_line_exit_15(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, options: tuple[str, ...], said: str
) -> None:
    ran = cli("export", tiny_checkpoint, "-o", tmp_path / "output", *options)
    assert (ran.returncode, ran.stdout) == (15, "")
    assert said in ran.stderr
    assert not (tmp_path / "output").exists()


def test_a_missing_onnx_runtime_exits_20_with_the_command_that_installs_it(
    cli: Run,
    pretend_versions: Callable[..., None],
    tmp_path: Path,
    tiny_bundle_copy: Path,
    tiny_checkpoint: Path,
) -> None:
    pretend_versions(lambda name: name.startswith("onnxruntime"))
    ran = cli("verify", "parity", tiny_bundle_copy)
    assert (ran.returncode, ran.stdout) == (20, "")
    assert 'pip install "onnxruntime>=1.20"' in ran.stderr
    ran = cli("export", tiny_checkpoint, "-o", tmp_path / "output", "--image-size", "64")
    assert (ran.returncode, ran.stdout) == (20, "")
    assert 'pip install "onnxruntime>=1.20"' in ran.stderr
    assert "loading" not in ran.stderr  # told before any work
    assert not (tmp_path / "output").exists()


def test_a_folder_that_is_no_bundle_exits_30(cli: Run, tmp_path: Path) -> None:
    for command in (("verify", "parity"), ("bench",), ("inspect",)):
        ran = cli(*command, tmp_path)
        assert (ran.returncode, ran.stdout) == (30, "")
        assert f"{tmp_path} is not a bundle" in ran.stderr


@pytest.mark.parametrize("command", [("verify", "parity"), ("bench", "--onnx")], ids=" ".join)
def test_an_altered_file_exits_31_by_name(
    cli: Run, tiny_bundle_copy: Path, onnx_of: Callable[[Path], Path], command: tuple[str, ...]
) -> None:
    path = onnx_of(tiny_bundle_copy)
    path.write_bytes(path.read_bytes() + b"\0")
    ran = cli(*command, tiny_bundle_copy)
    assert (ran.returncode, ran.stdout) == (31, "")
    assert f"{path} is not the file that the bundle recorded" in ran.stderr


def test_an_exporter_that_fails_exits_40_and_leaves_nothing(
    cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    ran = cli("export", tiny_checkpoint, "--image-size", "64", "-o", tmp_path / "bundle")
    assert (ran.returncode, ran.stdout) == (40, "")
    assert "no such operator" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_onnx_file_exits_50(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"\xff" * 100)
    ran = cli("inspect", tmp_path / "garbage.onnx")
    assert (ran.returncode, ran.stdout) == (50, "")
    assert "garbage.onnx is damaged or not a valid ONNX file" in ran.stderr


def test_an_engine_that_cannot_be_built_exits_42_with_the_builders_words(
    cli: Run, engine_bundle_copy: Path
) -> None:
    line = ("build", engine_bundle_copy, "--backend", "tensorrt-rtx", "--workspace", "1")
    ran = cli(*line, "--json")
    assert ran.returncode == 42
    told = json.loads(ran.stdout)["error"]
    assert (told["kind"], told["exit_code"]) == ("EngineBuildError", 42)
    assert "could not build an engine" in told["message"]
    assert "Tactic Selection" in told["message"]
    assert "more scratch memory" in ran.stderr


@pytest.mark.usefixtures("no_gpu")
def test_an_engine_that_does_not_fit_exits_51_with_every_reason(
    cli: Run, engine_bundle_copy: Path, repository: Path
) -> None:
    ran = cli(
        "predict",
        repository / "examples" / "digits" / "val" / "0",
        engine_bundle_copy,
        "--with",
        "engine",
        "--json",
    )
    assert ran.returncode == 51
    told = json.loads(ran.stdout)["error"]
    assert (told["kind"], told["exit_code"]) == ("EngineUnfitError", 51)
    assert "there is no NVIDIA GPU to run on" in told["message"]
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "command", [("verify", "parity"), ("bench", "--engine"), ("bench", "--onnx", "--engine")], ids=" ".join
)
def test_an_altered_engine_is_a_changed_file_of_the_bundle(
    cli: Run, engine_bundle_copy: Path, command: tuple[str, ...]
) -> None:
    engine = engine_bundle_copy / "model.fp32.tensorrt-rtx.engine"
    engine.write_bytes(engine.read_bytes()[:-1])
    ran = cli(*command, engine_bundle_copy)
    assert ran.returncode == 31
    assert f"{engine} is not the file that the bundle recorded" in ran.stderr


def test_every_exit_code_is_in_the_reference(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    documented = {int(line.split("|")[1]) for line in text.splitlines() if re.match(r"\| \d+ \|", line)}

    def codes(kind: type[RIFormerDeployError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(child) for child in kind.__subclasses__()))

    assert documented == codes(RIFormerDeployError) | {0, 129, 130, 141, 143}


@pytest.mark.parametrize(
    "line",
    [
        ("inspect", LONG),
        ("bench", LONG),
        ("export", LONG),
        ("export", "{tiny}", "--image-size", "64", "-o", LONG),
        ("fuse", "{tiny}", "-o", LONG),
        ("features", "a.png", "-o", LONG),
        ("predict", LONG),
        ("compare", LONG, LONG),
        ("report", "-o", LONG),
    ],
    ids=lambda line: " ".join(line[:-1]),
)
def test_a_name_too_long_for_the_system_is_an_error_of_its_kind_and_not_internal(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, line: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli(*(item.format(tiny=tiny_checkpoint) for item in line))
    assert "internal error" not in ran.stderr
    assert ran.returncode in (2, 10, 30, 32)
    assert list(tmp_path.iterdir()) == []
