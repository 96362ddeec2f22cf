"""A bundle as a Triton model repository: the artifact, its preprocessing and the ensemble of both."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleConflictError, OptionError
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.data.transforms import check_supported, pixels_of
from riformer_deploy.serving.golden import Golden, encoded_pictures, golden_of
from riformer_deploy.serving.pbtxt import Message, render
from riformer_deploy.serving.triton_artifacts import batching_of, container_of, served_artifact
from riformer_deploy.serving.triton_config import (
    LABELS,
    ONNX_FILE,
    PLAN_FILE,
    WARMUP_IMAGES,
    WARMUP_PICTURE,
    Batching,
    ModelNames,
    ensemble_config,
    network_config,
    preprocess_config,
)
from riformer_deploy.serving.triton_pictures import PREPROCESSING
from riformer_deploy.serving.triton_readme import readme_of, start_command

CONFIG = "config.pbtxt"
_VERSION = "1"
_TOOLKIT = "toolkit"
_MODULES = (
    "common/__init__.py", "common/dependencies.py", "common/errors.py", "common/serialization.py",
    "common/files.py", "common/foreign_data.py", "common/telemetry.py", "data/__init__.py",
    "data/decoding.py", "data/jpeg.py", "data/png.py", "data/preprocessing.py", "data/tiff.py",
    "data/transforms.py", "serving/__init__.py", "serving/triton_pictures.py",
)  # fmt: skip
"""What the preprocessing model imports of this package; it goes into the repository as it is here."""
_MODEL = f'''"""The preprocessing of this repository's pictures, by the modules in ``{_TOOLKIT}``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "{_TOOLKIT}"))

from riformer_deploy.serving.triton_pictures import TritonPythonModel  # noqa: E402

__all__ = ["TritonPythonModel"]
'''


class PicturePreprocessing(StrEnum):
    """What makes tensors of pictures in a repository."""

    PYTHON = "python"
    """A model of the Python backend, with exactly the bundle's pixels."""
    NONE = "none"
    """Nothing: clients send tensors."""
    DALI = "dali"
    """Refused: DALI's pixels are not those that accuracy was measured with."""


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """What repository to write.

    Attributes:
        output: Its folder; a new one, or one that this wrote, with ``force``.
        group: What Triton runs: ``onnx``, or ``engine`` for a plan of TensorRT.
        precision: What it computes in; None takes the bundle's first that Triton can run.
        preprocess: What makes tensors of pictures.
        name: Of the ensemble, which the other models' names begin with; None takes the bundle's.
        force: Replace a repository that was written before.
    """

    output: Path | str
    group: Group = Group.ONNX
    precision: Precision | None = None
    preprocess: PicturePreprocessing = PicturePreprocessing.PYTHON
    name: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.group not in (Group.ONNX, Group.ENGINE):
            raise OptionError(f"Triton runs onnx or engine here, not {self.group}.")
        if self.preprocess is PicturePreprocessing.DALI:
            raise OptionError(
                "Pictures are not prepared with DALI: it decodes and resizes with other arithmetic than "
                "Pillow, so that the network would see other pixels than accuracy was measured with; "
                "how far scores move cannot be told without DALI and a GPU.",
                remedy="Use --preprocess python, whose pixels are the bundle's, or --preprocess none and "
                "prepare tensors with a pipeline of your own.",
            )
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise OptionError(
                f"{self.name!r} is no name of a model: use letters, digits, dots, dashes and underscores."
            )


@dataclass(frozen=True, kw_only=True)
class TritonReport:
    """What was written.

    Attributes:
        output: The repository.
        models: Names of its models, what clients call first.
        artifact: The bundle's file that it serves.
        artifact_sha256: Of that file.
        largest_batch: Most images in one batch.
        batching: Where the figures of dynamic batching come from.
        container: Triton's image that can run it.
        command: The line that starts it.
        notes: What is to be known beyond that.
    """

    output: str
    models: tuple[str, ...]
    artifact: str
    artifact_sha256: str
    largest_batch: int
    batching: str
    container: str
    command: str
    notes: tuple[str, ...]


def model_name(bundle: Bundle) -> str:
    """The ensemble's name where none is given: that of the bundle's folder, in Triton's characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", bundle.directory.resolve().name).strip("-._") or "riformer"


def write_repository(bundle: Bundle, options: TritonOptions) -> TritonReport:
    """Write a repository that Triton loads with strict configurations.

    Args:
        bundle: Holds the artifact.
        options: What to write, and where.

    Raises:
        BundleError: The bundle holds nothing that Triton can run as asked, a file was changed, the artifact
            failed parity, or no golden inputs are kept.
        BundleConflictError: ``output`` exists, and is not to be replaced.
        OptionError: Pictures cannot be prepared as the bundle says, or ``output`` cannot be written.
    """
    output = Path(options.output)
    names = ModelNames.of(options.name or model_name(bundle))
    _check_output(output, force=options.force)
    artifact = served_artifact(bundle, options.group, options.precision)
    if options.preprocess is PicturePreprocessing.PYTHON:
        check_supported(bundle.manifest.model.preprocessing)
    batching = batching_of(bundle, artifact)
    container, notes = container_of(artifact)
    command = start_command(
        output,
        container,
        bundle.manifest.model.preprocessing if options.preprocess is PicturePreprocessing.PYTHON else None,
    )
    writer = _Writer(
        bundle=bundle, artifact=artifact, names=names, batching=batching, golden=golden_of(bundle)
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            folder = Path(scratch) / "new"
            models = writer.write(folder, options.preprocess)
            (folder / "README.md").write_text(readme_of(models, command, batching, notes), encoding="utf-8")
            if output.exists():
                output.rename(Path(scratch) / "old")
            folder.rename(output)
    except OSError as err:
        raise OptionError(f"The repository {output} cannot be written: {err}") from err
    return TritonReport(
        output=str(output),
        models=models,
        artifact=artifact.file.path,
        artifact_sha256=artifact.file.sha256,
        largest_batch=batching.largest,
        batching=batching.source,
        container=container,
        command=command,
        notes=notes,
    )


def _check_output(output: Path, *, force: bool) -> None:
    if not output.exists():
        return
    own = output.is_dir() and any(output.glob(f"*-network/{CONFIG}"))
    if not own and not (output.is_dir() and not any(output.iterdir())):
        raise BundleConflictError(
            f"{output} exists and is no repository of this toolkit.", remedy="Name another folder with -o."
        )
    if own and not force:
        raise BundleConflictError(
            f"{output} exists already.", remedy="Use --force to replace it, or another -o."
        )


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """What a repository is written of."""

    bundle: Bundle
    artifact: OnnxArtifact | EngineArtifact
    names: ModelNames
    batching: Batching
    golden: Golden

    def write(self, folder: Path, preprocess: PicturePreprocessing) -> tuple[str, ...]:
        """Write every model; names of them, what clients call first."""
        names, artifact, batching = self.names, self.artifact, self.batching
        pictures = preprocess is PicturePreprocessing.PYTHON
        classes = self.bundle.manifest.model.class_names
        labels = classes is not None
        network = network_config(names, artifact, batching, labels=labels, cached=not pictures)
        self._model(folder / names.network, network, {self._file_name: self._served()})
        self._warm_up(folder / names.network / "warmup", {WARMUP_IMAGES: self._golden_input()})
        labelled = [names.network]
        if pictures:
            self._model(folder / names.preprocess, preprocess_config(names, artifact, batching), {})
            self._preprocessing(folder / names.preprocess)
            self._model(
                folder / names.pictures, ensemble_config(names, artifact, batching, labels=labels), {}
            )
            labelled.append(names.pictures)
        for name in labelled if classes is not None else ():
            text = "".join(f"{' '.join(label.split())}\n" for label in classes or ())
            (folder / name / LABELS).write_text(text, encoding="utf-8", errors="backslashreplace")
        return (names.pictures, names.preprocess, names.network) if pictures else (names.network,)

    @property
    def _file_name(self) -> str:
        return PLAN_FILE if isinstance(self.artifact, EngineArtifact) else ONNX_FILE

    def _served(self) -> bytes:
        """Content of the artifact, which is the one that was checked."""
        artifact = self.artifact
        bundle = self.bundle
        return bundle.read(artifact.file) if isinstance(artifact, EngineArtifact) else bundle.graph(artifact)

    def _golden_input(self) -> bytes:
        """One golden image as the network takes it."""
        (source,) = self.artifact.inputs
        image = self.golden.images[:1]
        if source.dtype == "uint8":
            return pixels_of(image, self.bundle.manifest.model.preprocessing).tobytes()
        return image.astype(source.dtype).tobytes()

    def _model(self, folder: Path, config: Message, files: Mapping[str, bytes]) -> None:
        version = folder / _VERSION  # an ensemble has an empty one: without it Triton finds no version
        version.mkdir(parents=True)
        (folder / CONFIG).write_text(render(config), encoding="utf-8")
        for name, content in files.items():
            (version / name).write_bytes(content)

    def _warm_up(self, folder: Path, files: Mapping[str, bytes]) -> None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def _preprocessing(self, folder: Path) -> None:
        version, preprocessing = folder / _VERSION, self.bundle.manifest.model.preprocessing
        (version / "model.py").write_text(_MODEL, encoding="utf-8")
        (version / PREPROCESSING).write_text(dump_json(preprocessing), encoding="utf-8")
        package = version / _TOOLKIT / "riformer_deploy"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            '"""What this repository\'s pictures need."""\n', encoding="utf-8"
        )
        source = resources.files("riformer_deploy")
        for name in _MODULES:
            (package / name).parent.mkdir(exist_ok=True)
            (package / name).write_bytes(source.joinpath(name).read_bytes())
        picture = encoded_pictures(preprocessing)[0]
        # Triton's bytes: the length in four bytes, little end first, before the content.
        self._warm_up(folder / "warmup", {WARMUP_PICTURE: len(picture).to_bytes(4, "little") + picture})
