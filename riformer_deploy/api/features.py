"""Feature vectors and maps of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "FeatureOptions",
    "FeatureReport",
    "extract_features",
    "find_pictures",
]

import numpy as np

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group
from riformer_deploy.common.errors import BundleConflictError, ImageError, OptionError
from riformer_deploy.common.replacing import replacing
from riformer_deploy.data.image_files import PictureFiles, find_pictures
from riformer_deploy.data.loader import LoaderOptions, load_batches
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.serving.feature_extractor import FeatureExtractor, feature_runner


@dataclass(frozen=True, kw_only=True)
class FeatureReport:
    """What ``features`` wrote.

    Attributes:
        output: The file: ``images`` (N,) names of the pictures, and the array named here.
        array: ``features`` or ``stage1`` to ``stage4``.
        shape: Of that array, float32.
        model: What was run.
        broken: Pictures that could not be used; they are not in the arrays.
    """

    output: str
    array: str
    shape: tuple[int, ...]
    model: str
    broken: tuple[UnusableImage, ...]


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What to extract and where to.

    Attributes:
        output: The ``.npz`` file.
        stage: 1 to 4 for the map (N, C, H, W) after that stage's last block, before any norm; None for
            pooled features (N, C), what the classifier's head takes.
        batch: Pictures at a time.
        workers: Threads that decode; None takes one a core.
        force: Replace ``output`` if it exists.
        group: What runs the model. PyTorch gives everything; ONNX Runtime and OpenVINO give pooled features
            where a graph was exported with that output or the last stage's map, and the maps of any graph; an
            engine pooled features alone.
    """

    output: Path | str
    stage: int | None = None
    batch: int = 32
    workers: int | None = None
    force: bool = False
    group: Group = Group.TORCH

    def __post_init__(self) -> None:
        if self.stage not in (None, 1, 2, 3, 4):
            raise OptionError(f"--stage must be 1, 2, 3 or 4, got {self.stage}.")
        if self.stage is not None and self.group is Group.ENGINE:
            raise OptionError(
                "An engine does not show its stages.", remedy="Leave --stage out, or choose another --with."
            )


def extract_features(directory: Path | str, pictures: PictureFiles, options: FeatureOptions) -> FeatureReport:
    """Write features of pictures, computed by PyTorch in float32 unless ``group`` says otherwise.

    Args:
        directory: The bundle.
        pictures: Files to read.
        options: What and where to.

    Returns:
        The report; pictures that cannot be used are in its ``broken``.

    Raises:
        BundleError: It is not a bundle, a file was changed, or nothing in it gives them with ``group``.
        BundleConflictError: ``output`` exists and ``force`` was not given.
        ImageError: None of the pictures can be used; then nothing is written.
        OptionError: ``output`` cannot be written.
        RuntimeFailureError: The model cannot run.
        MissingDependencyError: What runs it is not installed.
    """
    output = Path(options.output)
    if output.exists() and (not options.force or output.is_dir()):
        raise BundleConflictError(
            f"{output} exists already.", remedy="Use --force to replace it, or another -o."
        )
    bundle = Bundle.open(Path(directory))
    model = bundle.manifest.model
    loader = LoaderOptions(preprocessing=model.preprocessing, batch=options.batch, workers=options.workers)
    candidate = feature_runner(bundle, options.group, stage=options.stage)
    names, parts, broken = [], [], []
    with FeatureExtractor(
        candidate, options.group, model.architecture.block_names, options.stage
    ) as extractor:
        for part in load_batches(pictures, loader):
            broken += [UnusableImage(image=pictures.name_of(i), reason=why) for i, why in part.broken.items()]
            if part.usable:
                parts.append(extractor.features(part.images))
                names += [pictures.name_of(index) for index in part.usable]
    if not parts:
        raise ImageError("None of the pictures can be used.", details=[item.reason for item in broken])
    array = "features" if options.stage is None else f"stage{options.stage}"
    values = np.concatenate(parts)
    try:
        with replacing(output) as partial, partial.open("wb") as file:
            np.savez(file, images=np.array(names), **{array: values})  # type: ignore[arg-type]  # numpy's stub
    except OSError as err:
        raise OptionError(f"{output} cannot be written: {err}") from err
    return FeatureReport(
        output=str(output),
        array=array,
        shape=values.shape,
        model=candidate.name,
        broken=tuple(broken),
    )
