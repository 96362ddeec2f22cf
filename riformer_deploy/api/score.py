"""`score`: classes or features of any number of pictures, here or on a cluster, as one Parquet file."""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riformer_deploy.backends.base import Candidate
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import require, require_installed
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.progress import CountCallback, uncounted
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.image_files import PictureFiles, find_pictures
from riformer_deploy.data.loader import LoaderOptions
from riformer_deploy.serving.bulk_work import ExpectedModel, FeatureWork, ScoreWork
from riformer_deploy.serving.feature_extractor import feature_runner
from riformer_deploy.serving.ray_pictures import PictureJob, map_pictures
from riformer_deploy.serving.ray_session import RayOptions
from riformer_deploy.serving.runner import only_runner
from riformer_deploy.serving.score_file import ScoreFile, ScoreRecord
from riformer_deploy.system.machine import library_versions

__all__ = ["RayOptions", "ScoreOptions", "ScoreReport", "find_pictures", "score_pictures"]

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What to score with, and where to.

    Attributes:
        output: The Parquet file; while the pass runs, its parts are in a folder of that name and ``.parts``.
        group: What runs the model.
        precision: What it computes in; None takes the bundle's first that runs and passed parity.
        features: Write pooled features instead of classes.
        top: How many classes of each picture.
        batch: Pictures that a model is given at a time.
        force: Replace ``output`` where it exists, and an interrupted pass of something else.
        ray: Where it is done.
    """

    output: Path | str
    group: Group = Group.ONNX
    precision: Precision | None = None
    features: bool = False
    top: int = 5
    batch: int = 32
    force: bool = False
    ray: RayOptions = field(default_factory=RayOptions)

    def __post_init__(self) -> None:
        if self.top < 1:
            raise OptionError(f"--top must be at least 1, got {self.top}.")


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """What ``score`` wrote.

    Attributes:
        output: The file. Its columns: ``image``, the path; ``labels``, ``names`` (where classes have names)
            and ``scores``, best first, or ``features``; ``reason``, why a picture could not be used. The rows
            are in the order of the pictures.
        model: What was run.
        artifact_sha256: Of its file.
        images: How many rows.
        broken: How many of them have a reason instead of an answer.
        resumed_from: Rows that an earlier, interrupted pass had written.
        seconds: What this pass took, with loading and starting Ray.
    """

    output: str
    model: str
    artifact_sha256: str
    images: int
    broken: int
    resumed_from: int
    seconds: float


def score_pictures(
    directory: Path | str,
    pictures: PictureFiles,
    options: ScoreOptions,
    count: CountCallback = uncounted,
) -> ScoreReport:
    """Score pictures with Ray Data, and write one row of each; an interrupted pass is taken up again.

    Each batch is what ``predict_images`` would put together, so the answers are its answers exactly.

    Args:
        directory: The bundle. Every machine of a cluster has it, and the pictures, at the same path.
        pictures: Files to read.
        options: With what, where, and where to.
        count: Called with how far it is.

    Raises:
        BundleError: It is not a bundle, a file was changed, it holds nothing that ``group`` runs, or it is
            another one on a machine of the cluster.
        BundleConflictError: ``output`` exists and ``force`` was not given; or it was begun by another pass.
        OptionError: A number is not positive, or ``output`` cannot be written.
        RuntimeFailureError: The model cannot run, Ray does not start, or the cluster has no room.
        EngineUnfitError: None of its engines fits this machine.
        MissingDependencyError: Ray, or what runs the model, is not installed.
    """
    begun_s = time.monotonic()
    require_installed("ray")
    output, bundle = Path(options.output), Bundle.open(Path(directory).absolute())
    model = bundle.manifest.model
    LoaderOptions(preprocessing=model.preprocessing, batch=options.batch)  # refuses what cannot be honoured
    if not len(pictures):
        raise OptionError("There are no pictures to score.")
    candidate = _candidate(bundle, options)
    job = _job(bundle, pictures, candidate, options)
    names = model.class_names if not options.features else None
    with ScoreFile(output, _record(model, pictures, candidate, options), force=options.force) as file:
        start = file.done
        count(start, len(pictures))
        if start < len(pictures):
            with contextlib.closing(map_pictures(job, options.ray, start=start)) as answered:
                for first, table in answered:
                    file.add(_rows(table, pictures, first, names))
                    count(first + len(table), len(pictures))
        file.finish()
    return ScoreReport(
        output=str(output),
        model=candidate.name,
        artifact_sha256=candidate.artifact_sha256,
        images=len(pictures),
        broken=_broken_in(output),
        resumed_from=start,
        seconds=time.monotonic() - begun_s,
    )


def _candidate(bundle: Bundle, options: ScoreOptions) -> Candidate:
    if options.features:
        return feature_runner(bundle, options.group, precision=options.precision)
    return only_runner(bundle, options.group, precision=options.precision)


def _job(bundle: Bundle, pictures: PictureFiles, candidate: Candidate, options: ScoreOptions) -> PictureJob:
    expected = ExpectedModel(
        bundle=str(bundle.directory), model=bundle.manifest.model, artifacts=(candidate.artifact_sha256,)
    )
    threads, precision = options.ray.cpus, candidate.precision
    work: FeatureWork | ScoreWork
    if options.features:
        work = FeatureWork(expected=expected, group=options.group, precision=precision, threads=threads)
    else:
        work = ScoreWork(
            expected=expected, group=options.group, precision=precision, top=options.top, threads=threads
        )
    return PictureJob(
        pictures=pictures,
        paths=pictures.paths,
        work=work,
        batch=options.batch,
        stand_in=bundle.directory / MANIFEST,
        gpus=1 if options.group is Group.ENGINE else 0,
    )


def _record(
    model: ModelRecord, pictures: PictureFiles, candidate: Candidate, options: ScoreOptions
) -> ScoreRecord:
    return ScoreRecord(
        schema=_SCHEMA,
        version=VERSION,
        model=candidate.name,
        artifact_sha256=candidate.artifact_sha256,
        model_sha256=hashlib.sha256(dump_json(model).encode()).hexdigest(),
        features=options.features,
        top=options.top,
        batch=options.batch,
        pictures=len(pictures),
        pictures_sha256=pictures.identity(),
        libraries=library_versions(),
    )


def _rows(table: Any, pictures: PictureFiles, start: int, names: tuple[str, ...] | None) -> Any:
    """Answers as they are stored: with the pictures' names, and the classes'."""
    pa = require("pyarrow")
    paths = [pictures.name_of(start + row) for row in range(len(table))]
    shown = [path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for path in paths]
    columns: dict[str, Any] = {"image": pa.array(shown, pa.string())}
    columns |= dict(zip(table.column_names, table.columns, strict=True))
    if names is not None:
        labels = table["labels"].to_pylist()
        columns["names"] = pa.array(
            [row and [names[label] for label in row] for row in labels], pa.list_(pa.string())
        )
    order = [name for name in ("image", "labels", "names", "scores", "features", "reason") if name in columns]
    return pa.table({name: columns[name] for name in order})


def _broken_in(output: Path) -> int:
    with require("pyarrow", "parquet").ParquetFile(output) as file:
        batches = file.iter_batches(columns=["reason"])
        return sum(len(batch) - batch["reason"].null_count for batch in batches)
