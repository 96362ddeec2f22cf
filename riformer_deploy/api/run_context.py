"""What the steps of ``run`` share: the inputs, and what the bundle holds of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.bundle_assembly import source_of
from riformer_deploy.api.export import load_asked, model_record
from riformer_deploy.api.run_records import RUN, RunOptions, RunRecord, RunStep, StepOutcome
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import ModelRecord, Source
from riformer_deploy.bundle.results import recording_failures, store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.enums import Target
from riformer_deploy.common.errors import (
    BundleError,
    EngineUnfitError,
    MissingDependencyError,
    RuntimeFailureError,
)
from riformer_deploy.common.progress import Progress
from riformer_deploy.common.serialization import RecordError, load_json
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.datasets import Dataset, open_dataset
from riformer_deploy.export.onnx_export import DEFAULT_OPSET
from riformer_deploy.system.cuda_driver import Driver, query_driver
from riformer_deploy.system.machine import describe_machine
from riformer_deploy.system.records import Machine


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The inputs of a run.

    Attributes:
        options: What was asked for.
        source: The checkpoint.
        model: What the model is.
        images: The calibration images, if any were given.
        dataset: The labelled pictures, if any were given.
        driver: This machine's.
        machine: This machine.
        progress: Called with each step.
        notes: What the user should know of the inputs, such as an assumption that was made.
    """

    options: RunOptions
    source: Source
    model: ModelRecord
    images: CalibrationSet | None
    dataset: Dataset | None
    driver: Driver
    machine: Machine
    progress: Progress
    notes: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """The bundle's folder."""
        return Path(self.options.output)

    @property
    def has_gpu(self) -> bool:
        """Whether there is a GPU that may be used."""
        return bool(self.driver.gpus) and self.options.target is not Target.CPU

    def same_software(self, machine: Machine) -> bool:
        """Whether what was found on a machine is found here, too: the same processor and libraries."""
        here = self.machine
        return (machine.cpu, machine.system, machine.libraries) == (here.cpu, here.system, here.libraries)


def prepare(options: RunOptions, progress: Progress) -> RunContext:
    """Read the inputs, so that those that cannot be used are refused before any work is done.

    Args:
        options: What was asked for.
        progress: Called with each step.

    Raises:
        CheckpointError: The checkpoint is not usable.
        CalibrationError: The calibration images cannot be used.
        DatasetError: The labelled pictures cannot be found, or their labels do not fit the model.
        MissingDependencyError: ONNX Runtime is not installed.
        OptionError: An option cannot be honoured.
    """
    require("onnxruntime")
    progress("loading the checkpoint")
    exported = options.export_options((LoweringConfig(),), opset=DEFAULT_OPSET, batch=None)
    checkpoint = load_asked(exported)
    notes = list(checkpoint.notes)
    source, model = source_of(checkpoint), model_record(checkpoint, exported, notes)
    del checkpoint
    images = None
    if options.calibration is not None:
        progress("reading the calibration images")
        given = CalibrationSource(source=options.calibration, skip_bad=options.skip_bad)
        images = given.open(model.preprocessing, "int8")
        notes += images.warnings
    dataset = None
    if options.data is not None:
        classes = ClassList(count=model.architecture.num_classes, names=model.class_names)
        dataset = open_dataset(Path(options.data), classes, split=options.split).limited(options.limit)
        notes += dataset.notes
    return RunContext(
        options=options,
        source=source,
        model=model,
        images=images,
        dataset=dataset,
        driver=query_driver(),
        machine=describe_machine(),
        progress=progress,
        notes=tuple(notes),
    )


def read_record(bundle: Bundle) -> RunRecord:
    """What an earlier run stored; an empty record where there is none that can be read."""
    record = bundle.manifest.results.get(RUN)
    if record is None:
        return RunRecord()
    try:
        return load_json(RunRecord, bundle.text(record))
    except (BundleError, RecordError, UnicodeDecodeError):  # it only saves work
        return RunRecord()


def write_record(directory: Path, record: RunRecord) -> None:
    """Store what a later run is to know, where that is new.

    Args:
        directory: The bundle.
        record: What the bundle shall hold.
    """
    bundle = Bundle.open(directory)
    if read_record(bundle) != record:
        with recording_failures(RUN):
            store_result(bundle, RUN, record)


def intact(bundle: Bundle, record: FileRecord) -> bool:
    """Whether a file of a bundle is the one that was recorded."""
    try:
        bundle.path_of(record)
    except BundleError:
        return False
    return True


def measured_step(name: str, work: Callable[[], str]) -> RunStep:
    """Do some work; where a backend cannot, that is said and does not stop the rest.

    Args:
        name: Of the step.
        work: Does it, and says what was done.
    """
    start = time.monotonic()
    try:
        text, outcome = work(), StepOutcome.DONE
    except (EngineUnfitError, MissingDependencyError, RuntimeFailureError) as err:
        text, outcome = "; ".join([err.message, *err.details]), StepOutcome.FAILED
    return RunStep(name=name, outcome=outcome, text=text, seconds=time.monotonic() - start)
