from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.bundle.artifacts import TensorSpec
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import ExportError, OptionError, RuntimeFailureError
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.export.lowering import LoweredRIFormer, lower
from riformer_deploy.export.onnx_export import (
    DEFAULT_OPSET,
    NEWEST_OPSET,
    OLDEST_OPSET,
    OnnxOptions,
    export_onnx,
    ir_version_of,
)
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold, fuse

SIZE = (64, 48)
"""Height and width that other tests export at, too: what is exported alike is exported once in a run."""
PLAIN = Preprocessing(resize_short_edge_px=None, crop_px=SIZE)
METADATA = {"tool_version": "1.2.3", "source_sha256": "ab" * 32}


def _lowered(model: RIFormer) -> LoweredRIFormer:
    return lower(fold(model), LoweringConfig(), PLAIN)


def _agrees(path: Path, model: RIFormer, size: tuple[int, int], batch: int) -> None:
    images = synthetic_images(batch, size, seed=batch)
    found, expected = OnnxRuntime(path).run(images), PyTorchRuntime(model).run(images)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("opset", "form"),
    [
        (18, "training"),
        pytest.param(21, "deploy", marks=pytest.mark.slow),
        pytest.param(18, "deploy", marks=pytest.mark.slow),
        pytest.param(21, "training", marks=pytest.mark.slow),
    ],
)
def test_other_opsets_compute_the_same_and_stay_dynamic(
    tiny_model: RIFormer, tmp_path: Path, opset: int, form: str
) -> None:
    path = tmp_path / "model.onnx"
    model = _lowered(fuse(tiny_model) if form == "deploy" else tiny_model)
    inputs, outputs = export_onnx(model, path, OnnxOptions(image_size_px=SIZE, opset=opset), METADATA)
    assert inputs == (TensorSpec(name="images", dtype="float32", shape=("batch", 3, *SIZE)),)
    assert outputs == (TensorSpec(name="logits", dtype="float32", shape=("batch", 7)),)
    graph = onnx.load(path)
    assert [item.version for item in graph.opset_import if item.domain == ""] == [opset]
    for batch in (1, 2, 3, 8):
        _agrees(path, tiny_model, SIZE, batch)


IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}


def test_every_opset_on_offer_has_its_ir_version() -> None:
    assert {opset: ir_version_of(opset) for opset in range(OLDEST_OPSET, NEWEST_OPSET + 1)} == IR_VERSIONS


@pytest.mark.parametrize(
    ("opset", "ir_version"),
    [
        pytest.param(
            *item, marks=[pytest.mark.slow] * (item[0] not in (OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET))
        )
        for item in IR_VERSIONS.items()
    ],
)
def test_a_file_has_the_ir_version_of_its_opset_and_runs(
    tiny_model: RIFormer, tmp_path: Path, opset: int, ir_version: int
) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(_lowered(tiny_model), path, OnnxOptions(image_size_px=SIZE, opset=opset), METADATA)
    graph = onnx.load(path)
    assert graph.ir_version == ir_version
    # What IR 10 and later brought is not in files that say less.
    nothing = [graph.graph.quantization_annotation, graph.functions]
    assert [len(item) for item in nothing] == [0, 0]
    assert not any(item.metadata_props for item in (*graph.graph.initializer, *graph.graph.node))
    assert not any(node.overload for node in graph.graph.node)
    _agrees(path, tiny_model, SIZE, 2)


@pytest.mark.slow
def test_float8_has_an_ir_version_that_knows_it(fp8_bundle: Path) -> None:
    """Float8 types came with IR 9, and so with the oldest opset that fp8 is exported in."""
    graph = onnx.load(fp8_bundle / "model.fp8.onnx")
    assert graph.ir_version == IR_VERSIONS[DEFAULT_OPSET] == 9
    assert onnx.TensorProto.FLOAT8E4M3FN in {item.data_type for item in graph.graph.initializer}


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_the_default_graph_is_one_file_for_every_batch(
    tiny_bundle: Path, tiny_model: RIFormer, onnx_of: Callable[[Path], Path], batch: int
) -> None:
    path = onnx_of(tiny_bundle)
    assert [item.version for item in onnx.load(path).opset_import if item.domain == ""] == [DEFAULT_OPSET]
    _agrees(path, tiny_model, SIZE, batch)


def test_a_fixed_batch_takes_that_batch_and_no_other(tiny_model: RIFormer, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    inputs, outputs = export_onnx(_lowered(tiny_model), path, OnnxOptions(image_size_px=SIZE, batch=3), {})
    assert (inputs[0].shape, outputs[0].shape) == ((3, 3, *SIZE), (3, 7))
    _agrees(path, tiny_model, SIZE, 3)
    for batch in (1, 4):
        with pytest.raises(RuntimeFailureError):
            OnnxRuntime(path).run(synthetic_images(batch, SIZE, seed=0))


def test_the_smallest_image_can_be_exported(tiny_model: RIFormer, tmp_path: Path) -> None:
    export_onnx(_lowered(tiny_model), tmp_path / "model.onnx", OnnxOptions(image_size_px=(3, 3)), {})
    for batch in (1, 5):
        _agrees(tmp_path / "model.onnx", tiny_model, (3, 3), batch)


def test_every_blocks_output_carries_the_blocks_name(
    tiny_bundle: Path, onnx_of: Callable[[Path], Path]
) -> None:
    graph = onnx.load(onnx_of(tiny_bundle)).graph
    produced = {name for node in graph.node for name in node.output}
    blocks = ("0.0", "2.0", "4.0", "4.1", "6.0")
    assert {f"backbone.network.{block}" for block in blocks} <= produced
    assert [item.name for item in graph.output] == ["logits"]


def test_weights_carry_the_keys_that_the_checkpoint_has(
    tiny_bundle: Path, tiny_model: RIFormer, onnx_of: Callable[[Path], Path]
) -> None:
    """The folded form's keys are mmpretrain's, less those that are folded away."""
    graph = onnx.load(onnx_of(tiny_bundle)).graph
    found = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    folded = fold(tiny_model).state_dict()
    assert {name for name in found if "." in name} == set(folded)
    for name, value in folded.items():
        assert np.array_equal(found[name].reshape(value.shape), value.numpy()), name
    stored = tiny_model.state_dict()
    assert np.array_equal(found["head.fc.weight"], stored["head.fc.weight"].numpy())
    assert np.array_equal(found["head.fc.bias"], stored["head.fc.bias"].numpy())


def test_int8_weights_and_their_scales_carry_them_too(precise_bundle: Path, digits_folded: RIFormer) -> None:
    graph = onnx.load(precise_bundle / "model.int8.onnx").graph
    found = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    assert set(digits_folded.state_dict()) <= set(found)
    assert not [name for name in found if name.startswith("model.")]
    weight, scale = found["head.fc.weight"].astype(np.float64), found["head.fc.weight_scale"][:, None]
    true = digits_folded.head.fc.weight.detach().double().numpy()
    assert np.abs(weight * scale - true).max() <= 0.5001 * scale.max()


def test_fp8_weights_and_their_scales_carry_them_too(fp8_bundle: Path, digits_folded: RIFormer) -> None:
    graph = onnx.load(fp8_bundle / "model.fp8.onnx").graph
    found = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    assert set(digits_folded.state_dict()) <= set(found)
    name = "backbone.network.2.1.mlp.fc1"
    weight, scale = found[f"{name}.weight"].astype(np.float64), float(found[f"{name}.weight_scale"])
    true = digits_folded.state_dict()[f"{name}.weight"].double().numpy()
    assert np.abs(weight).max() <= 448
    assert np.abs(weight * scale - true).max() <= 2**-4 * np.abs(true).max()


@pytest.mark.parametrize("which", ["tiny_bundle", "digits_bundle"])
def test_nothing_local_is_in_the_file(
    which: str, request: pytest.FixtureRequest, onnx_of: Callable[[Path], Path], repository: Path
) -> None:
    directory: Path = request.getfixturevalue(which)
    path = onnx_of(directory)
    content = path.read_bytes()
    traces = (b"site-packages", b"riformer_deploy/", b".py", b"Traceback", b"stack_trace", b"pkg.torch")
    for trace in (*traces, str(repository).encode(), str(Path.home()).encode() + b"/", b"/tmp/"):
        assert trace not in content, trace
    assert _documented(onnx.load(path)) == []


def _documented(message: Any) -> list[str]:
    """Every ``doc_string`` that is not empty, and every metadata entry below the model's own."""
    found = []
    for field, value in message.ListFields():
        own = field.name == "metadata_props" and message.DESCRIPTOR.name == "ModelProto"
        if field.name in {"doc_string", "metadata_props"} and value and not own:
            found.append(f"{message.DESCRIPTOR.name}.{field.name}: {value}")
        elif field.type == field.TYPE_MESSAGE:
            items = [value] if hasattr(value, "ListFields") else value
            found += [line for item in items for line in _documented(item)]
    return found


def test_the_model_says_where_it_comes_from_and_nothing_else(
    tiny_bundle: Path, onnx_of: Callable[[Path], Path]
) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    graph = onnx.load(onnx_of(tiny_bundle))
    assert {item.key: item.value for item in graph.metadata_props} == {
        "tool_version": manifest.tool_version,
        "precision": "fp32",
        "source_sha256": manifest.source.sha256,
        "weights_sha256": manifest.source.weights_sha256,
        "norm": "instance",
        "norm_io": "fp32",
        "mlp": "conv",
        "norm2": "explicit",
        "input": "normalised",
        "output": "logits",
        "calibration": "none",
        "preprocessing": json.dumps(to_jsonable(manifest.model.preprocessing)),
        "class_names": json.dumps([f"class {index}" for index in range(7)]),
    }
    assert (graph.producer_name, graph.producer_version) == ("riformer-deploy", manifest.tool_version)


@pytest.mark.usefixtures("fresh_exports")
def test_two_exports_are_the_same_bytes_and_change_nothing_about_the_model(
    tiny_bundle: Path, tiny_model: RIFormer, tmp_path: Path, onnx_of: Callable[[Path], Path]
) -> None:
    first = onnx_of(tiny_bundle)
    metadata = {item.key: item.value for item in onnx.load(first).metadata_props}
    second, model = tmp_path / "another name.onnx", _lowered(tiny_model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export_onnx(model, second, OnnxOptions(image_size_px=SIZE), metadata)
    assert second.read_bytes() == first.read_bytes()
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("size", "batch", "opset", "said"),
    [
        ((2, 64), None, 20, "at least 3 px"),
        ((64, 0), None, 20, "at least 3 px"),
        ((64, 64), 0, 20, "batch must be positive"),
        ((64, 64), -1, 20, "batch must be positive"),
        ((64, 64), None, 17, "opset must be from 18"),
        ((64, 64), None, 999, "opset must be from 18"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(
    size: tuple[int, int], batch: int | None, opset: int, said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        OnnxOptions(image_size_px=size, batch=batch, opset=opset)


def test_all_bad_options_are_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        OnnxOptions(image_size_px=(1, 1), batch=0, opset=1)
    assert len(caught.value.details) == 3


def _written_opset(model: RIFormer, path: Path, opset: int) -> int | str:
    try:
        export_onnx(_lowered(model), path, OnnxOptions(image_size_px=SIZE, opset=opset), {})
    except ExportError as err:
        return str(err)
    return next(int(item.version) for item in onnx.load(path).opset_import if item.domain == "")


def test_an_opset_that_the_exporter_was_not_tried_with_is_refused_before_any_work() -> None:
    with pytest.raises(OptionError, match=f"from 18 to {NEWEST_OPSET}, got {NEWEST_OPSET + 1}"):
        OnnxOptions(image_size_px=(16, 16), opset=NEWEST_OPSET + 1)


def test_the_newest_opset_on_offer_is_really_written(tiny_model: RIFormer, tmp_path: Path) -> None:
    assert _written_opset(tiny_model, tmp_path / "model.onnx", NEWEST_OPSET) == NEWEST_OPSET


def test_a_model_that_cannot_be_traced_is_an_export_error(tiny_model: RIFormer, tmp_path: Path) -> None:
    model = _lowered(tiny_model)
    model.head.fc = torch.nn.Linear(5, 7)  # does not fit the features
    with pytest.raises(ExportError, match="could not export the model"):
        export_onnx(model, tmp_path / "model.onnx", OnnxOptions(image_size_px=(16, 16)), {})
    assert not (tmp_path / "model.onnx").exists()
