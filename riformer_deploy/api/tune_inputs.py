"""What ``tune`` is asked for, and what its answer depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from riformer_deploy.api.tune_artifacts import RUNTIMES
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.enums import Group, OutputForm
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.datasets import Dataset, open_dataset
from riformer_deploy.evaluation.resume_log import key_of
from riformer_deploy.quantization.search import SearchTask
from riformer_deploy.quantization.search_records import SearchGate
from riformer_deploy.quantization.search_space import (
    SPACE_VERSION,
    asked_of,
    dimensions_of,
    form_of,
    plain_configs,
    quantized_configs,
)
from riformer_deploy.system.machine import describe_machine, usable_cores

_SCORES = (OutputForm.LOGITS, OutputForm.PROBABILITIES)
_PICTURES = 1000


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What to tune for, on which images, and for how long.

    Attributes:
        calibration: ``random``, an ``.npz`` file or a folder of images: ranges follow from them, and accuracy
            is judged on up to 64 of them.
        skip_bad: Use the rest of the calibration images where part of them cannot be used.
        data: Labelled pictures; None judges without labels.
        split: Which part of them.
        limit: Use so many of them, spread evenly; None for 1,000, since every trial runs on them.
        group: The target: ``onnx`` (ONNX Runtime on the CPU), ``openvino`` or ``engine`` (TensorRT).
        batches: Batch sizes that one artifact is to be fast at; it has to win at each of them.
        gate: What the artifact must hold to, beside the parity tolerance of its precision.
        max_seconds: Limit of the search; None for none. Writing the answer and proving its parity come on
            top.
        threads: CPU threads; None takes every core that the process may use.
        again: Search even where the bundle holds the answer.
    """

    calibration: Path | str | None
    skip_bad: bool = False
    data: Path | str | None = None
    split: str = "val"
    limit: int | None = None
    group: Group = Group.ONNX
    batches: tuple[int, ...] = (1,)
    gate: SearchGate = field(default_factory=SearchGate)
    max_seconds: float | None = None
    threads: int | None = None
    again: bool = False

    def __post_init__(self) -> None:
        problems = []
        if self.group not in RUNTIMES:
            problems.append(f"a bundle is tuned for {', '.join(RUNTIMES)}, got {self.group}")
        if not self.batches or min(self.batches) < 1 or len(set(self.batches)) != len(self.batches):
            problems.append(f"batches are positive, each once, got {self.batches}")
        if self.max_seconds is not None and not 0 < self.max_seconds < float("inf"):
            problems.append(f"max-seconds must be a positive number, got {self.max_seconds}")
        for name, value in (("threads", self.threads), ("limit", self.limit)):
            if value is not None and value < 1:
                problems.append(f"{name} must be at least 1, got {value}")
        if self.limit is not None and self.data is None:
            problems.append("--limit is for the labelled pictures of --data, and none were given")
        if problems:
            raise OptionError("The bundle cannot be tuned as asked.", details=problems)

    @property
    def used_threads(self) -> int:
        """CPU threads of each artifact."""
        return self.threads or usable_cores()


def check_bundle(manifest: Manifest, options: TuneOptions) -> None:
    """See that a bundle can be tuned as asked, before any work is done.

    Args:
        manifest: The bundle's.
        options: What was asked for.

    Raises:
        OptionError: It cannot; everything wrong is listed.
    """
    problems = []
    fixed, form = manifest.onnx[0].batch, manifest.onnx[0].lowering.output_form
    if fixed is not None and options.batches != (fixed,):
        shown = ", ".join(map(str, options.batches))
        problems.append(f"its graphs take batch {fixed} only, and --batch says {shown}")
    if form not in _SCORES and options.gate.max_drop_points is not None:
        problems.append(f"--max-drop compares classes, and its graphs give {form}")
    if form not in _SCORES and options.data is not None:
        problems.append(f"--data measures top-1, and its graphs give {form}")
    if problems:
        raise OptionError("The bundle cannot be tuned as asked.", details=problems)


def labelled_pictures(manifest: Manifest, options: TuneOptions) -> Dataset | None:
    """The labelled pictures that were named; None where none were.

    Raises:
        DatasetError: They cannot be found, or their labels do not fit the model.
    """
    if options.data is None:
        return None
    model = manifest.model
    classes = ClassList(count=model.architecture.num_classes, names=model.class_names)
    return open_dataset(Path(options.data), classes, split=options.split).limited(options.limit or _PICTURES)


def identity_of(
    manifest: Manifest, options: TuneOptions, images: CalibrationSet, dataset: Dataset | None
) -> str:
    """sha256 over everything that an answer depends on; the bundle's graphs are not part of it.

    Args:
        manifest: The bundle's.
        options: What was asked for.
        images: The calibration images.
        dataset: The labelled pictures.
    """
    return key_of(
        {
            "space": SPACE_VERSION,
            "tool": VERSION,
            "machine": to_jsonable(describe_machine()),
            "weights": manifest.source.weights_sha256,
            "preprocessing": to_jsonable(manifest.model.preprocessing),
            "form": to_jsonable(form_of(manifest.onnx[0].lowering)),
            "graph batch": manifest.onnx[0].batch,
            "calibration": [images.content_sha256, images.count],
            "pictures": None if dataset is None else [dataset.identity, len(dataset), dataset.total],
            "group": str(options.group),
            "batches": list(options.batches),
            "gate": to_jsonable(options.gate),
            "max seconds": options.max_seconds,
            "threads": options.used_threads,
        }
    )


def task_of(manifest: Manifest, options: TuneOptions, layers: tuple[str, ...]) -> SearchTask:
    """What is searched for a bundle.

    Args:
        manifest: The bundle's; what it holds takes part.
        options: What was asked for.
        layers: Names of the layers that int8 quantises.
    """
    runtime, form = RUNTIMES[options.group], form_of(manifest.onnx[0].lowering)
    plain, starts = plain_configs(form, runtime), quantized_configs(form, runtime, layers)
    known = {config.precision for config in (*plain, *starts)}
    held = [asked_of(graph.lowering) for graph in manifest.onnx]
    return SearchTask(
        plain=plain,
        starts=starts,
        held=tuple(config for config in held if config.precision in known and form_of(config) == form),
        dimensions=dimensions_of(layers),
        runtime=runtime,
        gate=options.gate,
        max_seconds=options.max_seconds,
    )
