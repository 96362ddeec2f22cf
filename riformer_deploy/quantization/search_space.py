"""What ``tune`` tries: a table of dimensions, each a few named choices of a lowering config.

A new field of :class:`~riformer_deploy.bundle.lowering_config.LoweringConfig` becomes part of the search by
one more entry in :func:`dimensions_of`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from riformer_deploy.bundle.layer_groups import selected
from riformer_deploy.bundle.lowering_config import LoweringConfig, quantizes
from riformer_deploy.common.enums import (
    LayerGroup,
    Method,
    MlpForm,
    Norm2Form,
    NormForm,
    Precision,
    ResidualForm,
    RuntimeKind,
)
from riformer_deploy.common.errors import OptionError

SPACE_VERSION = 3
"""Part of a search's identity: raise it when the table changes, so that no stored answer is of another."""


class Effect(StrEnum):
    """What a dimension changes, and so how its choices are compared."""

    SPEED = "speed"
    """The operators alone: the faster choice wins, as long as no gate is lost by it."""
    ACCURACY = "accuracy"
    """The numbers in the graph alone: the more accurate choice wins, and nothing is timed."""
    BOTH = "both"
    """Both: until the gate holds the more accurate choice wins, then the faster one."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One choice of a dimension.

    Attributes:
        name: What the trace calls it, such as ``group``.
        change: Makes it in a config; may raise OptionError where the rest of the config does not allow it.
    """

    name: str
    change: Callable[[LoweringConfig], LoweringConfig]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One thing to choose.

    Attributes:
        name: What the trace calls it, such as ``norm form``.
        choices: All of them.
        effect: What they change.
        fits: Whether choosing makes sense for a config in a runtime.
    """

    name: str
    choices: tuple[Choice, ...]
    effect: Effect
    fits: Callable[[LoweringConfig, RuntimeKind], bool] = lambda _config, _runtime: True


def _set(name: str, **fields: object) -> Choice:
    return Choice(name=name, change=lambda config: dataclasses.replace(config, **fields))  # type: ignore[arg-type]  # fields of the record


def _norm_form(form: NormForm) -> Choice:
    # the moments have no operator with narrow inputs, so choosing them undoes norm_io
    return _set(str(form), norm=form, **({"norm_io": Precision.FP32} if form is NormForm.MOMENTS else {}))


def _excluded(config: LoweringConfig, layers: Iterable[str]) -> LoweringConfig:
    return dataclasses.replace(config, exclude_layers=tuple(sorted(set(layers))))


def _is_int8(config: LoweringConfig, _runtime: RuntimeKind) -> bool:
    return config.precision is Precision.INT8


def _halves(config: LoweringConfig, _runtime: RuntimeKind) -> bool:
    """Whether there is a base other than float32 that norms could be in."""
    return config.base is not Precision.FP32


def _takes_half_base(config: LoweringConfig, runtime: RuntimeKind) -> bool:
    # OpenVINO 2026.4 compiles int8 convolutions among half-precision ones, but does not run them.
    return config.precision is Precision.INT8 and runtime is not RuntimeKind.OPENVINO


def _layer_group(group: LayerGroup, layers: Sequence[str]) -> Dimension:
    members = selected((group,), layers)

    def fits(config: LoweringConfig, _runtime: RuntimeKind) -> bool:
        return any(quantizes(config.precision, name) for name in members)

    return Dimension(
        name=str(group),
        choices=(
            Choice(
                name="quantised",
                change=lambda config: _excluded(config, set(config.exclude_layers) - set(members)),
            ),
            Choice(
                name="in the base",
                change=lambda config: _excluded(config, {*config.exclude_layers, *members}),
            ),
        ),
        effect=Effect.BOTH,
        fits=fits,
    )


_GROUPS = (LayerGroup.STEM, LayerGroup.HEAD, LayerGroup.DOWNSAMPLING, LayerGroup.FC2, LayerGroup.FC1)
"""In the order in which they are searched: first those that cost a runtime much and hold little."""


def _residual(name: str, form: ResidualForm | None = None, stages: tuple[int, ...] = ()) -> Choice:
    """Which tensors of residual additions are int8, in which stages (positions in ``backbone.network``)."""
    return _set(
        name,
        quantize_residual=form is not None,
        residual_form=form or ResidualForm.INPUTS,
        residual_blocks=tuple(f"backbone.network.{stage}" for stage in stages),
    )


def dimensions_of(layers: Sequence[str]) -> tuple[Dimension, ...]:
    """Every dimension, in the order in which they are searched.

    Args:
        layers: Names of the model's layers that int8 quantises.
    """
    return (
        Dimension(name="norm form", choices=tuple(map(_norm_form, NormForm)), effect=Effect.SPEED),
        Dimension(
            name="residual additions",
            choices=(
                _residual("in the base"),
                _residual("int8 inputs", form=ResidualForm.INPUTS),
                _residual("int8 results", form=ResidualForm.RESULTS),
                _residual("int8 results of the first two stages", form=ResidualForm.RESULTS, stages=(0, 2)),
            ),
            effect=Effect.BOTH,
            fits=_is_int8,
        ),
        Dimension(
            name="ranges",
            choices=tuple(_set(str(m), method=None if m is Method.MSE else m) for m in Method),
            effect=Effect.ACCURACY,
            fits=_is_int8,
        ),
        *(_layer_group(group, layers) for group in _GROUPS),
        Dimension(
            name="downsampling inputs",
            choices=(_set("equalised", equalize=None), _set("as they are", equalize=False)),
            effect=Effect.BOTH,
            fits=_is_int8,
        ),
        Dimension(
            name="base of int8",
            choices=(_set("fp32", int8_base=None), _set("fp16", int8_base=Precision.FP16)),
            effect=Effect.BOTH,
            fits=_takes_half_base,
        ),
        Dimension(
            name="fc1 and fc2 as",
            choices=(_set("convolutions", mlp=MlpForm.CONV), _set("products", mlp=MlpForm.MATMUL)),
            effect=Effect.SPEED,
        ),
        Dimension(
            name="norm2",
            choices=(
                _set("explicit", norm2=Norm2Form.EXPLICIT),
                _set("folded into fc1", norm2=Norm2Form.FOLDED),
            ),
            effect=Effect.SPEED,
            fits=lambda config, _runtime: not config.precision.is_quantized,
        ),
        Dimension(
            name="inputs of norms",
            choices=(
                _set("fp32", norm_io=Precision.FP32),
                Choice(
                    name="as the base", change=lambda config: dataclasses.replace(config, norm_io=config.base)
                ),
            ),
            effect=Effect.BOTH,
            fits=_halves,
        ),
    )


def alternatives(
    dimension: Dimension, config: LoweringConfig, runtime: RuntimeKind
) -> tuple[tuple[Choice, LoweringConfig], ...]:
    """The choices of a dimension that make another config of this one, with that config.

    Args:
        dimension: From :func:`dimensions_of`.
        config: As asked for, not resolved.
        runtime: What is going to run it.
    """
    if not dimension.fits(config, runtime):
        return ()
    found: dict[str, tuple[Choice, LoweringConfig]] = {}
    for choice in dimension.choices:
        try:
            changed = choice.change(config).heeded()
        except OptionError:  # the rest of the config does not allow it
            continue
        if changed != config.heeded():
            found.setdefault(repr(changed), (choice, changed))
    return tuple(found.values())


_FLOATS = (Precision.FP32, Precision.FP16, Precision.BF16)
_PRECISIONS = {
    # ONNX Runtime has no CPU kernels for bfloat16 or float8, and OpenVINO computes float8 in float32
    RuntimeKind.ONNX_RUNTIME: (Precision.FP32, Precision.FP16, Precision.INT8),
    RuntimeKind.OPENVINO: (*_FLOATS, Precision.INT8),
    RuntimeKind.TENSORRT: (*_FLOATS, Precision.INT8, Precision.FP8),
}


def _in_precisions(
    form: LoweringConfig, runtime: RuntimeKind, *, quantized: bool
) -> tuple[LoweringConfig, ...]:
    return tuple(
        dataclasses.replace(form, precision=precision)
        for precision in _PRECISIONS[runtime]
        if precision.is_quantized is quantized
        # float32 with inputs and outputs in half precision is no float32
        and not (precision is Precision.FP32 and form.io is Precision.FP16)
    )


def plain_configs(form: LoweringConfig, runtime: RuntimeKind) -> tuple[LoweringConfig, ...]:
    """The floating precisions that a runtime has, as ``export`` lowers to them by default.

    Args:
        form: A config of nothing but inputs and outputs (:func:`form_of`).
        runtime: ONNX Runtime, OpenVINO or TensorRT.
    """
    return _in_precisions(form, runtime, quantized=False)


def quantized_configs(
    form: LoweringConfig, runtime: RuntimeKind, layers: Sequence[str]
) -> tuple[LoweringConfig, ...]:
    """The quantised precisions that a runtime has, each in the form to begin with.

    That is the one that ``export`` lowers to by default; but ONNX Runtime's CPU kernels compute int8
    convolutions between Q and DQ in float32, slower than plain ones, and have int8 products.

    Args:
        form: A config of nothing but inputs and outputs (:func:`form_of`).
        runtime: ONNX Runtime, OpenVINO or TensorRT.
        layers: Names of the model's layers that int8 quantises.
    """
    found = _in_precisions(form, runtime, quantized=True)
    if runtime is not RuntimeKind.ONNX_RUNTIME:
        return found
    convolutions = selected((LayerGroup.STEM, LayerGroup.DOWNSAMPLING, LayerGroup.HEAD), layers)
    return tuple(_excluded(dataclasses.replace(config, mlp=MlpForm.MATMUL), convolutions) for config in found)


def form_of(config: LoweringConfig) -> LoweringConfig:
    """A config of its inputs and outputs alone; everything else as by default."""
    kept = ("io", "input_form", "output_form", "topk", "out_indices")
    return LoweringConfig(
        # any precision that takes this io; it is replaced
        precision=Precision.FP16,
        **{name: getattr(config, name) for name in kept},
    )


def asked_of(config: LoweringConfig) -> LoweringConfig:
    """A stored config without what followed from calibration images, so that it can be resolved anew."""
    names = [field.name for field in dataclasses.fields(LoweringConfig)]
    derived, default = names[names.index("calibration") :], LoweringConfig()
    return dataclasses.replace(config, **{name: getattr(default, name) for name in derived}).heeded()
