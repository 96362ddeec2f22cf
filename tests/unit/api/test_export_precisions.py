from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from riformer_deploy.api.export import ExportOptions, ExportReport, export_checkpoint
from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import (
    InputForm,
    Method,
    MlpForm,
    Norm2Form,
    NormForm,
    OutputForm,
    Precision,
)
from riformer_deploy.common.errors import BundleConflictError, GateError, OptionError
from riformer_deploy.common.serialization import load_json
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.export.lowering import lower
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import CalibrationResult
from riformer_deploy.quantization.resolving import resolve_lowering
from riformer_deploy.quantization.sensitivity import Gate

Export = Callable[..., ExportReport]
PLAIN = LoweringConfig()


@pytest.fixture
def export(tmp_path: Path, tiny_checkpoint: Path) -> Export:
    """``export(*precisions, lowering=..., **options)``: the tiny model at 64x48 px into ``out``."""

    def run(*precisions: str, lowering: LoweringConfig = PLAIN, **options: Any) -> ExportReport:
        asked = ExportOptions(
            checkpoint=tiny_checkpoint,
            output=tmp_path / "out",
            image_size_px=(64, 48),
            lowerings=tuple(dataclasses.replace(lowering, precision=Precision(item)) for item in precisions),
            **options,
        )
        return export_checkpoint(asked)

    return run


def _graph(directory: Path, precision: str) -> onnx.ModelProto:
    return onnx.load(directory / f"model.{precision}.onnx")


@pytest.mark.untraced
def test_the_figures_of_the_digits_hold_in_onnx_runtime(
    precise_bundle: Path,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    digits_data: dict[str, NDArray[np.int64]],
) -> None:
    labels, found, sizes = digits_data["val_labels"], {}, {}
    for precision, least_db, lost_points in (("fp32", 120, 0), ("fp16", 60, 0), ("int8", 38.5, 0.3)):
        path = precise_bundle / f"model.{precision}.onnx"
        logits = OnnxRuntime(path).run(digits_inputs)["logits"]
        noise = np.linalg.norm(logits - digits_reference) / np.linalg.norm(digits_reference)
        found[precision], sizes[precision] = logits, path.stat().st_size
        assert -20 * np.log10(noise) >= least_db
        right = [(scores.argmax(1) == labels).mean() for scores in (digits_reference, logits)]
        assert 100 * (right[0] - right[1]) <= lost_points
    assert np.array_equal(found["fp16"].argmax(1), digits_reference.argmax(1))
    assert 0.45 < sizes["fp16"] / sizes["fp32"] < 0.6
    assert 0.22 < sizes["int8"] / sizes["fp32"] < 0.4


@pytest.mark.untraced
def test_the_figures_of_fp8_hold_in_onnx_runtime_and_the_file_is_the_module(
    fp8_bundle: Path,
    digits_folded: RIFormer,
    digits_preprocessing: Preprocessing,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    calibrated: CalibrationResult,
) -> None:
    logits = OnnxRuntime(fp8_bundle / "model.fp8.onnx").run(digits_inputs)["logits"]
    noise = np.linalg.norm(logits - digits_reference) / np.linalg.norm(digits_reference)
    assert -20 * np.log10(noise) >= 39.5
    assert (logits.argmax(1) != digits_reference.argmax(1)).mean() <= 0.003
    config = resolve_lowering(LoweringConfig(precision=Precision.FP8), calibrated)
    module = lower(digits_folded, config, digits_preprocessing)
    with torch.inference_mode():
        parts = [module(part).numpy() for part in torch.split(torch.from_numpy(digits_inputs), 32)]
    # ONNX Runtime's half is float32 between operators: some values fall to the other side of a step.
    apart = np.linalg.norm(logits - np.concatenate(parts)) / np.linalg.norm(digits_reference)
    assert apart < 0.8 * noise


def test_fp8_is_explicit_in_the_file(fp8_bundle: Path) -> None:
    graph = _graph(fp8_bundle, "fp8").graph
    stored = {item.name: item for item in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    kinds = onnx.TensorProto
    layers = [node for node in graph.node if node.op_type == "Conv" and ".mlp." in node.input[2]]
    assert len(layers) == 2 * 12
    for node in layers:
        activation, weight = made_by[node.input[0]], made_by[node.input[1]]
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert made_by[activation.input[0]].op_type == "QuantizeLinear"
        assert stored[weight.input[0]].data_type == kinds.FLOAT8E4M3FN
        for pair in (activation, weight):
            scale, zero = stored[pair.input[1]], stored[pair.input[2]]
            assert (list(scale.dims), scale.data_type) == ([], kinds.FLOAT16)
            assert (list(zero.dims), zero.data_type) == ([], kinds.FLOAT8E4M3FN)
            assert not onnx.numpy_helper.to_array(zero).astype(np.float32).any()
        assert stored[node.input[2]].data_type == kinds.FLOAT16
    others = [node for node in graph.node if node.op_type in ("Conv", "Gemm") and node not in layers]
    assert [stored[node.input[1]].data_type for node in others] == [kinds.FLOAT16] * 4 + [kinds.FLOAT]


def test_int8_is_explicit_in_the_file(precise_bundle: Path) -> None:
    graph = _graph(precise_bundle, "int8").graph
    stored = {item.name: item.data_type for item in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(layers) == 4 + 2 * 12 + 1
    for node in layers:
        weight = made_by[node.input[1]]
        while weight.op_type == "Transpose":
            weight = made_by[weight.input[0]]
        assert weight.op_type == made_by[node.input[0]].op_type == "DequantizeLinear"
        assert stored[weight.input[0]] == onnx.TensorProto.INT8
        assert len(node.input) < 3 or stored[node.input[2]] == onnx.TensorProto.FLOAT
    for node in graph.node:
        if node.op_type == "Gelu":
            assert made_by[node.input[0]].op_type == "Conv"
    zeros = {n.input[2] for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    values = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer if item.name in zeros}
    assert set(values) == zeros
    assert not any(value.any() for value in values.values())


def test_half_keeps_its_statistics_in_float32(precise_bundle: Path) -> None:
    inferred = onnx.shape_inference.infer_shapes(_graph(precise_bundle, "fp16")).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.output)}
    kinds = {
        kind: {types[node.output[0]] for node in inferred.node if node.op_type == kind}
        for kind in ("Conv", "Gelu", "InstanceNormalization", "ReduceMean")
    }
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert kinds == {
        "Conv": {half},
        "Gelu": {half},
        "InstanceNormalization": {single},
        "ReduceMean": {single},
    }


@pytest.mark.parametrize(
    ("lowering", "opset", "batch"),
    [
        *(
            pytest.param(lowering, opset, None, marks=pytest.mark.slow)
            for lowering, opset in (
                (LoweringConfig(norm=NormForm.GROUP, int8_base=Precision.FP16), 21),
                (LoweringConfig(norm=NormForm.MOMENTS, input_form=InputForm.UINT8), 20),
                (LoweringConfig(mlp=MlpForm.MATMUL), 21),
                (LoweringConfig(output_form=OutputForm.TOPK, topk=3), 20),
                (LoweringConfig(output_form=OutputForm.PROBABILITIES, io=Precision.FP16), 20),
                (LoweringConfig(output_form=OutputForm.FEATURES), 18),
            )
        ),
        # What those try one by one, at once, and of a fixed batch, which PyTorch exports sooner.
        (
            LoweringConfig(
                norm=NormForm.GROUP,
                mlp=MlpForm.MATMUL,
                int8_base=Precision.FP16,
                input_form=InputForm.UINT8,
                output_form=OutputForm.TOPK,
                topk=3,
            ),
            21,
            2,
        ),
        pytest.param(
            LoweringConfig(norm=NormForm.MOMENTS, output_form=OutputForm.PROBABILITIES, io=Precision.FP16),
            18,
            None,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_form_is_proven(
    export: Export, tmp_path: Path, lowering: LoweringConfig, opset: int, batch: int | None
) -> None:
    precisions = ("int8", "fp8") if batch else ("fp16", "int8", "fp8") if opset >= 19 else ("fp16", "int8")
    report = export(*precisions, lowering=lowering, calibration="random", opset=opset, batch=batch)
    assert report.status is Status.PASSED
    assert any("random" in note for note in report.notes)
    proven = {item.name: [output.name for output in item.outputs] for item in report.parity.candidates}
    expected = (
        ["scores", "labels"] if lowering.output_form is OutputForm.TOPK else [str(lowering.output_form)]
    )
    assert all(proven[f"ONNX Runtime {precision}"] == expected for precision in precisions)
    assert all(proven[f"OpenVINO {precision}"] == expected for precision in precisions if precision != "int8")
    half = lowering.int8_base is Precision.FP16
    assert [item.name for item in report.parity.skipped] == ["OpenVINO int8"] * half
    assert half or proven["OpenVINO int8"] == expected
    for artifact in Bundle.open(tmp_path / "out").manifest.onnx:
        assert artifact.lowering.norm is lowering.norm
        assert artifact.lowering.calibration is not None
        assert artifact.lowering.calibration.random
        assert artifact.inputs[0].dtype == (
            "uint8" if lowering.input_form == "uint8" else "float16" if lowering.io == "fp16" else "float32"
        )


@pytest.mark.slow
def test_bfloat16_is_compared_by_pytorch_and_openvino_and_the_report_says_so(export: Export) -> None:
    with pytest.raises(OptionError, match="needs opset 22"):
        export("bf16")
    forms = LoweringConfig(
        precision=Precision.BF16,
        norm=NormForm.LAYER,
        norm_io=Precision.BF16,
        mlp=MlpForm.MATMUL,
        norm2=Norm2Form.FOLDED,
        input_form=InputForm.UINT8,
    )
    report = export("bf16", opset=22, lowering=forms)
    assert report.status is Status.PASSED
    names = [item.name for item in report.parity.candidates if item.precision is Precision.BF16]
    assert names == ["PyTorch bf16, lowered", "OpenVINO bf16"]
    assert [item.name for item in report.parity.skipped] == ["ONNX Runtime bf16"]


@pytest.mark.untraced
def test_a_sweep_for_overflow_is_told(export: Export) -> None:
    assert any("tried on random images" in note for note in export("fp16").notes)


@pytest.mark.parametrize(
    ("precisions", "said"),
    [(("int8",), "int8 needs"), (("fp8",), "fp8 needs"), (("int8", "fp8"), "int8 and fp8 needs")],
)
def test_what_is_calibrated_without_images_is_refused_and_nothing_written(
    export: Export, tmp_path: Path, precisions: tuple[str, ...], said: str
) -> None:
    with pytest.raises(OptionError, match=f"{said} calibration images"):
        export(*precisions)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_another_precision_later_keeps_the_first_and_proves_both(export: Export, tmp_path: Path) -> None:
    export("fp32")
    before = (tmp_path / "out" / "model.fp32.onnx").read_bytes()
    report = export("int8", calibration="random")
    assert [item.precision for item in Bundle.open(tmp_path / "out").manifest.onnx] == ["fp32", "int8"]
    assert (tmp_path / "out" / "model.fp32.onnx").read_bytes() == before
    assert {"ONNX Runtime fp32", "ONNX Runtime int8"} < {item.name for item in report.parity.candidates}
    again = verify_bundle(tmp_path / "out")
    assert [item.name for item in again.candidates] == [item.name for item in report.parity.candidates]


def test_models_that_would_be_lost_are_named_and_dropped_only_by_force(
    export: Export, tmp_path: Path
) -> None:
    export("fp32")
    with pytest.raises(BundleConflictError) as caught:
        export("fp16", batch=2)
    assert caught.value.details == ("model.fp32.onnx: its batch is dynamic, that of the new models 2",)
    report = export("fp16", batch=2, force=True)
    assert any("dropped from the bundle: model.fp32.onnx" in note for note in report.notes)
    assert [item.precision for item in Bundle.open(tmp_path / "out").manifest.onnx] == ["fp16"]


@pytest.mark.slow
def test_a_gate_excludes_layers_by_name_and_an_impossible_one_fails(
    tmp_path: Path, digits_checkpoint: Path, calibration_file: Path
) -> None:
    asked = ExportOptions(
        checkpoint=digits_checkpoint,
        output=tmp_path / "out",
        image_size_px=(64, 64),
        lowerings=(LoweringConfig(precision=Precision.INT8),),
        calibration=str(calibration_file),
        gate=Gate(min_sqnr_db=46, max_drop_points=1),
    )
    report = export_checkpoint(asked)
    (artifact,) = Bundle.open(tmp_path / "out").manifest.onnx
    (note,) = [text for text in report.notes if "the gate of int8 holds" in text]
    assert artifact.lowering.exclude_layers
    assert all(name in note for name in artifact.lowering.exclude_layers)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(GateError, match="cannot hold the gate"):
        export_checkpoint(dataclasses.replace(asked, gate=Gate(min_sqnr_db=190)))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_gate_chooses_layers_of_each_quantised_precision_for_itself(
    tmp_path: Path, digits_checkpoint: Path, calibration_file: Path
) -> None:
    report = export_checkpoint(
        ExportOptions(
            checkpoint=digits_checkpoint,
            output=tmp_path / "out",
            image_size_px=(64, 64),
            lowerings=tuple(LoweringConfig(precision=item) for item in (Precision.FP8, Precision.INT8)),
            calibration=str(calibration_file),
            gate=Gate(min_sqnr_db=43.5),
        )
    )
    records = {item.precision: item.lowering for item in Bundle.open(tmp_path / "out").manifest.onnx}
    notes = {p: next(text for text in report.notes if f"the gate of {p} holds" in text) for p in records}
    for precision, record in records.items():
        assert record.exclude_layers
        assert all(name in notes[precision] for name in record.exclude_layers)
    assert all(".mlp." in name for name in records[Precision.FP8].exclude_layers)
    assert records[Precision.FP8].exclude_layers != records[Precision.INT8].exclude_layers
    float8, int8 = (records[p].calibration for p in (Precision.FP8, Precision.INT8))
    assert float8 is not None
    assert float8.method is Method.MAX
    assert int8 == dataclasses.replace(float8, method=Method.MSE)


@pytest.mark.untraced
def test_samples_are_calibration_images_and_parity_reports_run_on_them(precise_bundle: Path) -> None:
    manifest = Bundle.open(precise_bundle).manifest
    assert manifest.samples is not None
    assert np.load(precise_bundle / manifest.samples.path).shape == (32, 3, 64, 64)
    assert "calibration images" in verify_bundle(precise_bundle).inputs.description


@pytest.mark.usefixtures("noisy_openvino")
@pytest.mark.untraced
def test_openvinos_failure_keeps_no_file_from_being_written_and_is_stored(
    export: Export, tmp_path: Path
) -> None:
    report = export("fp32")
    assert report.status is Status.PASSED
    stored = load_json(ParityResult, (tmp_path / "out" / "parity.json").read_text(encoding="utf-8"))
    assert stored == report.parity
    assert [item.name for item in stored.failed] == ["OpenVINO fp32"]
    assert [item.judges_file for item in stored.candidates] == [True] * 4 + [False]
    (note,) = [text for text in report.notes if "own verdict" in text]
    assert note.startswith("OpenVINO fp32 (model.fp32.onnx), logits: |difference| up to ")
    again = verify_bundle(tmp_path / "out")
    assert (again.status, [item.name for item in again.failed]) == (Status.PASSED, ["OpenVINO fp32"])


@pytest.mark.slow
def test_bfloat16_is_verified_on_real_images_where_they_are_given(
    tmp_path: Path, digits_checkpoint: Path, calibration_file: Path
) -> None:
    """Two of the synthetic images are too far from digits for the SQNR that bfloat16 is held to."""
    asked = ExportOptions(
        checkpoint=digits_checkpoint,
        output=tmp_path / "out",
        image_size_px=(64, 64),
        lowerings=(LoweringConfig(precision=Precision.BF16),),
        opset=22,
    )
    assert export_checkpoint(asked).status is Status.FAILED
    report = export_checkpoint(dataclasses.replace(asked, calibration=str(calibration_file)))
    assert report.status is Status.PASSED
    assert report.parity.inputs.description == "calibration images of the bundle"
    assert "fp32 and bf16 need no calibration; parity runs on its images" in report.notes
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.samples is not None
    assert manifest.onnx[0].lowering.calibration is None
    (lowered,) = [item for item in report.parity.candidates if item.name == "PyTorch bf16, lowered"]
    assert lowered.outputs[0].deviation.sqnr_db is not None
    assert lowered.outputs[0].deviation.sqnr_db > 45


@pytest.mark.untraced
def test_an_impossible_gate_fails_and_nothing_is_written(export: Export, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="cannot hold the gate"):
        export("int8", calibration="random", gate=Gate(min_sqnr_db=190))
    assert not (tmp_path / "out").exists()


def test_images_that_no_precision_needs_are_those_that_parity_runs_on(export: Export, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((16, 3, 64, 48)).astype(np.float32)
    np.savez(tmp_path / "images.npz", images=images)
    report = export("fp32", calibration=str(tmp_path / "images.npz"))
    assert report.parity.inputs.description == "calibration images of the bundle"
    assert "fp32 and bf16 need no calibration; parity runs on its images" in report.notes
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.samples is not None
    np.testing.assert_array_equal(np.load(tmp_path / "out" / manifest.samples.path), images)
    assert manifest.onnx[0].lowering.calibration is None


def test_random_images_that_no_precision_needs_are_not_used(export: Export, tmp_path: Path) -> None:
    report = export("fp32", calibration="random")
    assert any("were not used" in note for note in report.notes)
    assert Bundle.open(tmp_path / "out").manifest.samples is None
