from __future__ import annotations

import dataclasses

import pytest

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import (
    InputForm,
    LayerGroup,
    MlpForm,
    NormForm,
    Precision,
    ResidualForm,
    RuntimeKind,
)
from riformer_deploy.export.option_checks import check_config
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import CalibrationResult
from riformer_deploy.quantization.resolving import resolve_lowering
from riformer_deploy.quantization.search_space import (
    alternatives,
    asked_of,
    dimensions_of,
    form_of,
    plain_configs,
    quantized_configs,
)

FORM = form_of(LoweringConfig(input_form=InputForm.UINT8))
RUNTIMES = (RuntimeKind.ONNX_RUNTIME, RuntimeKind.OPENVINO, RuntimeKind.TENSORRT)


def names(runtime: RuntimeKind, config: LoweringConfig, layers: tuple[str, ...]) -> dict[str, list[str]]:
    """What can be chosen, by dimension."""
    found = {d.name: [c.name for c, _ in alternatives(d, config, runtime)] for d in dimensions_of(layers)}
    return {name: choices for name, choices in found.items() if choices}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_alternative_can_be_honoured_and_keeps_inputs_and_outputs(
    runtime: RuntimeKind, digits_folded: RIFormer
) -> None:
    layers = quantizable(digits_folded)
    starts = (*plain_configs(FORM, runtime), *quantized_configs(FORM, runtime, layers))
    assert starts[0].precision is Precision.FP32
    for start in starts:
        for dimension in dimensions_of(layers):
            for _, changed in alternatives(dimension, start, runtime):
                assert changed != start.heeded()
                assert changed.precision is start.precision
                assert form_of(changed) == FORM
                check_config(changed, digits_folded)
                for further in dimensions_of(layers):  # whatever is chosen next may be chosen too
                    alternatives(further, changed, runtime)


def test_what_a_runtime_cannot_run_is_not_offered(digits_folded: RIFormer) -> None:
    layers = quantizable(digits_folded)
    onnx, openvino, engine = (
        {c.precision for c in (*plain_configs(FORM, r), *quantized_configs(FORM, r, layers))}
        for r in RUNTIMES
    )
    assert Precision.BF16 not in onnx
    assert Precision.BF16 in openvino
    assert Precision.FP8 not in onnx | openvino
    assert Precision.FP8 in engine
    int8 = dataclasses.replace(FORM, precision=Precision.INT8)
    assert "base of int8" not in names(RuntimeKind.OPENVINO, int8, layers)
    assert names(RuntimeKind.ONNX_RUNTIME, int8, layers)["base of int8"] == ["fp16"]
    fp8 = dataclasses.replace(FORM, precision=Precision.FP8)
    assert names(RuntimeKind.TENSORRT, fp8, layers).keys() & set(LayerGroup) == {"fc1", "fc2"}


def test_half_precision_inputs_leave_no_float32() -> None:
    half = form_of(LoweringConfig(precision=Precision.FP16, io=Precision.FP16))
    plain = plain_configs(half, RuntimeKind.OPENVINO)
    assert [config.precision for config in plain] == [Precision.FP16, Precision.BF16]


def test_groups_of_layers_are_excluded_together_and_come_back(digits_folded: RIFormer) -> None:
    layers = quantizable(digits_folded)
    by_name = {dimension.name: dimension for dimension in dimensions_of(layers)}
    int8 = dataclasses.replace(FORM, precision=Precision.INT8)
    ((_, without),) = alternatives(by_name["downsampling"], int8, RuntimeKind.OPENVINO)
    assert set(without.exclude_layers) == {f"backbone.network.{n}.proj" for n in (1, 3, 5)}
    ((_, head_too),) = alternatives(by_name["head"], without, RuntimeKind.OPENVINO)
    assert set(head_too.exclude_layers) - set(without.exclude_layers) == {"head.fc"}
    ((_, back),) = alternatives(by_name["downsampling"], head_too, RuntimeKind.OPENVINO)
    assert back.exclude_layers == ("head.fc",)


def test_moments_undo_the_norms_narrow_inputs(digits_folded: RIFormer) -> None:
    narrow = dataclasses.replace(FORM, norm_io=Precision.FP16)
    norm = dimensions_of(quantizable(digits_folded))[0]
    found = {choice.name: config for choice, config in alternatives(norm, narrow, RuntimeKind.OPENVINO)}
    assert found["moments"].norm_io is Precision.FP32
    assert found["group"].norm_io is Precision.FP16


def test_a_stored_config_is_asked_for_again_without_what_calibration_gave(
    calibrated: CalibrationResult,
) -> None:
    asked = LoweringConfig(precision=Precision.INT8, norm=NormForm.GROUP, exclude_layers=("head.fc",))
    resolved = resolve_lowering(asked, calibrated)
    assert resolved.ranges
    assert asked_of(resolved) == asked


def test_int8_for_onnx_runtime_begins_with_the_form_that_has_kernels(digits_folded: RIFormer) -> None:
    layers = quantizable(digits_folded)
    (start,) = quantized_configs(FORM, RuntimeKind.ONNX_RUNTIME, layers)
    assert (start.precision, start.mlp) == (Precision.INT8, MlpForm.MATMUL)
    assert {name.rsplit(".", 1)[1] for name in set(layers) - set(start.exclude_layers)} == {"fc1", "fc2"}
    (other,) = quantized_configs(FORM, RuntimeKind.OPENVINO, layers)
    assert (other.mlp, other.exclude_layers) == (MlpForm.CONV, ())


def test_the_residual_stream_can_be_int8_in_the_stages_that_hold_most_bytes(digits_folded: RIFormer) -> None:
    layers = quantizable(digits_folded)
    (start,) = quantized_configs(FORM, RuntimeKind.OPENVINO, layers)
    (dimension,) = [d for d in dimensions_of(layers) if d.name == "residual additions"]
    found = {choice.name: changed for choice, changed in alternatives(dimension, start, RuntimeKind.OPENVINO)}
    assert list(found) == ["int8 inputs", "int8 results", "int8 results of the first two stages"]
    first = found["int8 results of the first two stages"]
    assert (first.residual_form, first.residual_blocks) == (
        ResidualForm.RESULTS,
        ("backbone.network.0", "backbone.network.2"),
    )
    back = {choice.name: changed for choice, changed in alternatives(dimension, first, RuntimeKind.OPENVINO)}
    assert back["in the base"] == start.heeded()
