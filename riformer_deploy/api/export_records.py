"""What ``export`` is asked for, and what it did, as records."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import ModelRecord, Source
from riformer_deploy.common.enums import Precision, WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing_changes import AS_FOUND, PreprocessingChanges
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance
from riformer_deploy.export.onnx_export import DEFAULT_OPSET
from riformer_deploy.export.option_checks import check_opset, refuse_unused
from riformer_deploy.model.variants import Variant
from riformer_deploy.quantization.sensitivity import Gate


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export and where to.

    Attributes:
        checkpoint: The file.
        output: The bundle's folder.
        variant: The published model that the checkpoint must be; None recognises it.
        num_classes: The number of classes that it must have; None accepts what it has.
        weights: Which set of weights to take where the file holds two.
        key: Which RIFormer to take where it holds several.
        config: mmengine's config file of the checkpoint; None takes the one stored in it.
        image_size_px: Height and width; None takes what the checkpoint or the variant says.
        preprocessing: Settings that go before what the checkpoint or the variant says.
        class_names: A file of class names, one a line; None takes those stored, else ImageNet-1k's
            for 1000 classes.
        opset: Version of ONNX's default operator set.
        batch: A fixed batch size, or None for a dynamic one.
        tolerances: Limits by precision.
        force: Replace a bundle of another checkpoint.
        lowerings: What to export, one config for each precision; models of other precisions that the bundle
            holds already stay.
        calibration: ``random``, an ``.npz`` file or a folder of images; None for none. Parity, too, runs on
            real ones.
        skip_bad: Use the rest of the calibration images where part of them cannot be used.
        gate: What int8 and fp8 must hold to on the calibration images, excluding layers if need be.
        keep_failed: Where parity does not hold, keep what was made beside ``output``, in a folder of the same
            name with ``.failed`` at its end; no command takes it for a bundle.
    """

    checkpoint: Path | str
    output: Path | str
    variant: Variant | None = None
    num_classes: int | None = None
    weights: WeightSet | None = None
    key: str | None = None
    config: Path | str | None = None
    image_size_px: tuple[int, int] | None = None
    preprocessing: PreprocessingChanges = AS_FOUND
    class_names: Path | str | None = None
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    tolerances: dict[Precision, Tolerance] = dataclasses.field(default_factory=lambda: dict(TOLERANCES))
    force: bool = False
    lowerings: tuple[LoweringConfig, ...] = (LoweringConfig(),)
    calibration: Path | str | None = None
    skip_bad: bool = False
    gate: Gate | None = None
    keep_failed: bool = False

    def __post_init__(self) -> None:
        precisions = self.precisions
        if not precisions or len(set(precisions)) != len(precisions):
            raise OptionError(f"Each precision can be asked for once, got {list(map(str, precisions))}.")
        if self.gate is not None and not any(precision.is_quantized for precision in precisions):
            raise OptionError(
                "--min-sqnr and --max-drop choose layers of int8 and fp8, and neither was asked for."
            )
        refuse_unused(self.lowerings)
        check_opset(self.lowerings, self.opset)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What to export."""
        return tuple(config.precision for config in self.lowerings)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes:
        status: ``failed`` if a file's parity did not hold; then no bundle was written. A runtime's own
            verdict, such as OpenVINO's, is in ``parity`` and ``notes`` and keeps no file from being written.
        bundle: The bundle's folder, or None where nothing was written.
        model: What the model is.
        source: What it was made from.
        files: Every file of the bundle but ``bundle.json``; none where nothing was written.
        parity: The parity report.
        notes: What the user should know, such as an assumption that was made.
        advice: What to do where parity failed.
        kept: The folder that a failed export was kept in, if that was asked for.
    """

    status: Status
    bundle: str | None
    model: ModelRecord
    source: Source
    files: tuple[FileRecord, ...]
    parity: ParityResult
    notes: tuple[str, ...]
    advice: tuple[str, ...] = ()
    kept: str | None = None
