"""Feature vectors and maps of pictures."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "FeatureOptions",
    "FeatureReport",
    "extract_features",
    "find_pictures",
]

import numpy as np

from riformer_deploy.api.runner import only_runner
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group
from riformer_deploy.common.errors import BundleConflictError, ImageError, OptionError
from riformer_deploy.common.files import replacing
from riformer_deploy.data.image_files import PictureFiles, find_pictures
from riformer_deploy.data.loader import LoaderOptions, UnusableImage, load_batches

_LAST = "backbone.norm6"


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
        stage: 1 to 4 for the map (N, C, H, W) after that stage's last block; None for pooled features
            (N, C), what the classifier's head takes.
        batch: Pictures at a time.
        workers: Threads that decode; None takes one a core.
        force: Replace ``output`` if it exists.
    """

    output: Path
    stage: int | None = None
    batch: int = 32
    workers: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.stage not in (None, 1, 2, 3, 4):
            raise OptionError(f"--stage must be 1, 2, 3 or 4, got {self.stage}.")


def extract_features(directory: Path | str, pictures: PictureFiles, options: FeatureOptions) -> FeatureReport:
    """Write features of pictures, computed by PyTorch in float32 with the bundle's first weights.

    Args:
        directory: The bundle.
        pictures: Files to read.
        options: What and where to.

    Returns:
        The report; pictures that cannot be used are in its ``broken``.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        BundleConflictError: ``output`` exists and ``force`` was not given.
        ImageError: None of the pictures can be used; then nothing is written.
        OptionError: ``output`` cannot be written.
        RuntimeFailureError: The model cannot run.
    """
    if options.output.exists() and (not options.force or options.output.is_dir()):
        raise BundleConflictError(
            f"{options.output} exists already.", remedy="Use --force to replace it, or another -o."
        )
    bundle = Bundle.open(Path(directory))
    model = bundle.manifest.model
    loader = LoaderOptions(preprocessing=model.preprocessing, batch=options.batch, workers=options.workers)
    candidate = only_runner(bundle, Group.TORCH)
    tensor = _LAST if options.stage is None else model.architecture.block_names[options.stage - 1][-1]
    names, parts, broken = [], [], []
    with contextlib.closing(candidate.open()) as runtime:
        for part in load_batches(pictures, loader):
            broken += [UnusableImage(image=pictures.name_of(i), reason=why) for i, why in part.broken.items()]
            if part.usable:
                maps = runtime.tap(part.images, (tensor,))[tensor]
                parts.append(maps.mean((2, 3)) if options.stage is None else maps)
                names += [pictures.name_of(index) for index in part.usable]
    if not parts:
        raise ImageError("None of the pictures can be used.", details=[item.reason for item in broken])
    array = "features" if options.stage is None else f"stage{options.stage}"
    values = np.concatenate(parts).astype(np.float32)
    try:
        with replacing(options.output) as partial, partial.open("wb") as file:
            np.savez(file, images=np.array(names), **{array: values})  # type: ignore[arg-type]  # numpy's stub
    except OSError as err:
        raise OptionError(f"{options.output} cannot be written: {err}") from err
    return FeatureReport(
        output=str(options.output),
        array=array,
        shape=values.shape,
        model=candidate.name,
        broken=tuple(broken),
    )
