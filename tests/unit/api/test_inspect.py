from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from riformer_deploy.api.inspect import (
    BundleInspection,
    CheckpointInspection,
    OnnxInspection,
    inspect_file,
)
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    BundleError,
    CheckpointKeysError,
    CheckpointUnreadableError,
    RIFormerDeployError,
    RuntimeFailureError,
)
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity

CONFIG = """
test_pipeline = [
    dict(type='ResizeEdge', scale=72, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=64),
]
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
"""


def _checkpoint(path: Path) -> CheckpointInspection:
    found = inspect_file(path)
    assert isinstance(found, CheckpointInspection)
    return found


def _onnx(path: Path) -> OnnxInspection:
    found = inspect_file(path)
    assert isinstance(found, OnnxInspection)
    return found


def _save(path: Path, *, dtype: int = TensorProto.FLOAT, domain: str = "", version: int = 20) -> Path:
    weight = np.ones((2, 3), dtype=helper.tensor_dtype_to_np_dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", dtype, [2, 3])],
        [helper.make_tensor_value_info("y", dtype, [2, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, version)]), path)
    return path


def test_a_training_checkpoint_is_told_with_what_fusing_leaves_of_it(
    tiny_checkpoint: Path, tiny_architecture: Architecture, tiny_state: dict[str, Tensor]
) -> None:
    found = _checkpoint(tiny_checkpoint)
    assert (found.kind, found.path) == ("checkpoint", str(tiny_checkpoint))
    assert found.sha256 == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert (found.architecture, found.form, found.weights) == (
        tiny_architecture,
        Form.TRAINING,
        WeightSet.ONLY,
    )
    assert found.parameters == sum(value.numel() for value in tiny_state.values())
    assert found.deploy_parameters == complexity(tiny_architecture, Form.DEPLOY, (64, 64)).parameters
    assert found.training == {"epoch": "3"}
    assert found.class_names == tuple(f"class {index}" for index in range(7))


def test_a_fused_checkpoint_says_what_it_was_fused_from(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    told = _checkpoint(tiny_bundle / "deploy.pth").training["riformer_deploy"]
    assert f"source_sha256: {hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()}" in told
    assert "form: deploy" in told
    assert "None" not in told
    assert "{" not in told


def test_without_a_known_size_no_cost_is_invented(tiny_checkpoint: Path) -> None:
    found = _checkpoint(tiny_checkpoint)
    assert (found.variants, found.preprocessing, found.flops) == ((), None, None)
    (note,) = found.notes
    assert "image size" in note
    assert "is not known" in note


def test_a_stored_config_gives_the_size_and_so_the_cost(
    write_checkpoint: Callable[..., Path], tiny_architecture: Architecture
) -> None:
    found = _checkpoint(write_checkpoint(meta={"cfg": CONFIG}))
    assert found.preprocessing is not None
    assert (found.preprocessing.crop_px, found.preprocessing.source) == ((64, 64), "checkpoint")
    assert found.flops == complexity(tiny_architecture, Form.DEPLOY, (64, 64)).flops
    assert found.notes == ()


def test_what_is_left_out_of_a_checkpoint_is_noted(write_checkpoint: Callable[..., Path]) -> None:
    state = {**load_checkpoint(write_checkpoint()).state, "head.loss_module.class_weight": torch.ones(7)}
    found = _checkpoint(write_checkpoint(state, meta={"cfg": CONFIG}))
    assert found.notes == ("left out, since only training uses it: head.loss_module.class_weight",)


@pytest.mark.parametrize("form", [Form.TRAINING, Form.DEPLOY])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_form_and_stored_type_are_those_of_the_file(
    write_checkpoint: Callable[..., Path],
    filled: Callable[..., dict[str, Tensor]],
    tiny_architecture: Architecture,
    form: Form,
    dtype: torch.dtype,
) -> None:
    found = _checkpoint(write_checkpoint(filled(tiny_architecture, form), dtype=dtype))
    assert (found.form, found.stored_dtypes) == (form, (str(dtype).removeprefix("torch."),))
    assert (found.parameters == found.deploy_parameters) == (form is Form.DEPLOY)


def test_an_onnx_file_is_told_by_its_own_content(
    tiny_bundle: Path, onnx_of: Callable[[Path], Path], tiny_architecture: Architecture
) -> None:
    path = onnx_of(tiny_bundle)
    found = _onnx(path)
    cost = complexity(tiny_architecture, Form.FOLDED, (64, 48))
    assert found.flops == cost.flops
    # beside the weights, the graph stores a scale and a shift for norms that have none, and a few constants
    assert cost.parameters <= found.parameters < cost.parameters + 10
    assert found.producer.startswith("riformer-deploy ")
    assert (found.opset, found.size_bytes) == (20, path.stat().st_size)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*found.inputs, *found.outputs)] == [
        ("images", "float32", ("batch", 3, 64, 48)),
        ("logits", "float32", ("batch", 7)),
    ]
    assert {"tool_version", "precision", "source_sha256", "weights_sha256"} <= set(found.provenance)
    assert found.provenance["calibration"] == "none"
    model = Bundle.open(tiny_bundle).manifest.model
    assert (found.preprocessing, found.class_names) == (model.preprocessing, model.class_names)
    assert not {"preprocessing", "class_names"} & set(found.provenance)
    assert sum(item.count for item in found.nodes) == len(onnx.load(path).graph.node)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_floating_point_values_of_every_width_are_parameters(tmp_path: Path, dtype: int) -> None:
    assert _onnx(_save(tmp_path / "model.onnx", dtype=dtype)).parameters == 6


def test_integers_are_not_parameters(tmp_path: Path) -> None:
    assert _onnx(_save(tmp_path / "model.onnx", dtype=TensorProto.INT64)).parameters == 0


def test_an_onnx_file_of_custom_operators_alone_is_described_or_refused_on_purpose(tmp_path: Path) -> None:
    path = _save(tmp_path / "custom.onnx", domain="com.example", version=1)
    try:
        assert inspect_file(path).path == str(path)
    except RIFormerDeployError as err:
        assert path.name in str(err)  # noqa: PT017 (either outcome is fine, a crash is not)


def test_an_onnx_file_that_takes_no_tensor_is_described_or_refused_on_purpose(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceAt", ["s", "i"], ["y"])],
        "g",
        [
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    path = tmp_path / "sequence.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    try:
        assert inspect_file(path).path == str(path)
    except RIFormerDeployError as err:
        assert path.name in str(err)  # noqa: PT017 (as above)


def test_a_bundle_is_intact_until_a_file_changes_and_then_each_changed_file_is_named(
    tiny_bundle_copy: Path,
) -> None:
    found = inspect_file(tiny_bundle_copy)
    assert isinstance(found, BundleInspection)
    assert (found.intact, found.problems) == (True, ())
    assert inspect_file(tiny_bundle_copy / "bundle.json").kind == "bundle"

    (tiny_bundle_copy / "deploy.pth").unlink()
    (tiny_bundle_copy / "parity.json").write_text("{}")
    found = inspect_file(tiny_bundle_copy)
    assert isinstance(found, BundleInspection)
    assert not found.intact
    gone, altered = found.problems
    assert f"{tiny_bundle_copy / 'deploy.pth'} cannot be read" in gone
    assert f"{tiny_bundle_copy / 'parity.json'} is not the file that the bundle recorded" in altered


def test_every_kind_survives_json(
    tiny_checkpoint: Path, tiny_bundle: Path, onnx_of: Callable[[Path], Path]
) -> None:
    for path in (tiny_checkpoint, tiny_bundle, onnx_of(tiny_bundle)):
        found = inspect_file(path)
        assert load_json(type(found), dump_json(found)) == found


def test_what_is_nothing_of_ours_is_refused_by_kind_and_name(
    tmp_path: Path, write_checkpoint: Callable[..., Path], tiny_state: dict[str, Tensor]
) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    del tiny_state["head.fc.bias"]
    damaged = write_checkpoint(tiny_state, name="damaged.pth")
    cases: tuple[tuple[Path, type[RIFormerDeployError]], ...] = (
        (tmp_path / "junk", CheckpointUnreadableError),
        (tmp_path / "absent", CheckpointUnreadableError),
        (tmp_path / "junk.onnx", RuntimeFailureError),
        (tmp_path / "absent.onnx", CheckpointUnreadableError),
        (damaged, CheckpointKeysError),
        (tmp_path, BundleError),
    )
    for path, kind in cases:
        with pytest.raises(kind) as caught:
            inspect_file(path)
        assert str(path) in str(caught.value)


def test_a_bundle_is_told_with_its_graphs_its_cost_and_its_stored_parity_report(
    tiny_bundle: Path, onnx_of: Callable[[Path], Path], tiny_architecture: Architecture
) -> None:
    found = inspect_file(str(tiny_bundle))
    assert isinstance(found, BundleInspection)
    cost = complexity(tiny_architecture, Form.DEPLOY, (64, 48))
    assert (found.flops, found.deploy_parameters) == (cost.flops, cost.parameters)
    # what each file says of the model, a bundle says once
    alone = dataclasses.replace(_onnx(onnx_of(tiny_bundle)), preprocessing=None, class_names=None)
    assert found.graphs == (alone,)
    stored = load_json(ParityResult, (tiny_bundle / "parity.json").read_text(encoding="utf-8"))
    assert (found.parity, found.parity_utc) == (Status.PASSED, stored.created_utc)


def test_a_changed_graph_or_parity_report_of_a_bundle_is_not_described(tiny_bundle_copy: Path) -> None:
    for name in ("model.fp32.onnx", "parity.json"):
        (tiny_bundle_copy / name).write_bytes(b"{}")
    found = inspect_file(tiny_bundle_copy)
    assert isinstance(found, BundleInspection)
    assert (found.graphs, found.parity, found.parity_utc) == ((), None, None)
    assert len(found.problems) == 2


def test_what_lies_in_a_bundle_and_is_not_its_own_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / ".pending-killed").mkdir()
    (bundle / "notes.txt").touch()
    found = inspect_file(bundle)
    assert isinstance(found, BundleInspection)
    assert (found.foreign, found.intact) == ((".pending-killed", "notes.txt"), True)
