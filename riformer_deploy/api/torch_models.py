"""Models as PyTorch modules, and what they say of pictures, called as in mmpretrain."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NotRequired, TypedDict, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from riformer_deploy.checkpoints.config_agreement import architecture_of, with_config
from riformer_deploy.checkpoints.config_files import ConfigFile, read_config
from riformer_deploy.checkpoints.download import DownloadOptions, download_checkpoint
from riformer_deploy.checkpoints.load import Checkpoint, check_expectations, load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.checkpoints.stored_pipeline import preprocessing_of
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.class_names import resolve_class_names
from riformer_deploy.data.decoding import Rgb, decode_image, rgb_of
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import fit
from riformer_deploy.model.architecture import LAST_STAGE, Architecture, Form, checked_out_indices
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.variants import Variant, get_variant

_LOG = logging.getLogger(__name__)

ImageInput = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""A picture: its file, as Pillow holds it, or (H, W, 3) uint8 in BGR, as OpenCV gives it."""


Images = (
    list[str] | list[Path] | list[Image.Image] | list[NDArray[np.uint8]] | list[ImageInput]
    | tuple[ImageInput, ...]
)  # fmt: skip
"""Several pictures; no ``Sequence``, since a path is one of those, too."""


class InferenceResult(TypedDict):
    """What a model says of one picture, under mmpretrain's keys.

    Attributes:
        pred_label: The first class.
        pred_score: Its score.
        pred_scores: Softmax of the class scores, (classes,) float32.
        pred_class: The first class's name; absent where the model's classes have no known names.
    """

    pred_label: int
    pred_score: float
    pred_scores: NDArray[np.float32]
    pred_class: NotRequired[str]


def get_model(  # noqa: PLR0913  # mmpretrain's arguments and ours
    model: str | PathLike[str] | Architecture,
    pretrained: bool | str | PathLike[str] = False,  # noqa: FBT001, FBT002  # positional in mmpretrain
    device: str | torch.device | None = None,
    *,
    num_classes: int | None = None,
    out_indices: int | Sequence[int] = LAST_STAGE,
    deploy: bool = False,
    weights: WeightSet | str | None = None,
    key: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> RIFormer:
    """A RIFormer in evaluation mode, trainable.

    Args:
        model: A published model, such as ``riformer-s12_in1k``, mmengine's config file (``.py``), or an
            architecture of your own.
        pretrained: A checkpoint; True for the published one, which is fetched into PyTorch's hub folder
            (as mmpretrain does) and checked against the hash in its name. False leaves PyTorch's
            initial weights, in training form.
        device: Where the model goes; None for the CPU.
        num_classes: Classes of the head; None takes the model's own. Where the checkpoint has another
            number, the head is new, with initial weights, and a warning says so.
        out_indices: Positions in ``backbone.network`` whose maps ``extract_feat`` gives: 0, 2, 4 and 6 are
            the stages. A norm that the checkpoint does not hold is new, and a warning says so.
        deploy: Give the deploy form, whatever the checkpoint's is; so does a config's ``deploy=True``.
            Otherwise the form is the checkpoint's.
        weights: ``averaged`` or ``raw`` where the file holds both.
        key: Which RIFormer to take where the file holds several.
        preprocessing: What is done to pictures first; None takes the checkpoint's or the published one.

    Raises:
        OptionError: No published model has that name, or ``out_indices`` are no positions.
        CheckpointError: The checkpoint is not usable, or is another model's.
        DownloadError: The published checkpoint cannot be fetched.
    """
    variant, config, wanted = _identified(model)
    deploy = deploy or (config is not None and config.deploy)
    if num_classes is not None:
        wanted = dataclasses.replace(wanted, num_classes=num_classes)
    indices = checked_out_indices(out_indices)
    if pretrained is False:
        known = preprocessing or (variant.preprocessing if variant is not None else None)
        known = known or (preprocessing_of(config.text) if config is not None else None)
        made = RIFormer(
            wanted,
            Form.DEPLOY if deploy else Form.TRAINING,
            out_indices=indices,
            preprocessing=known,
            class_names=_class_names(config, wanted.num_classes),
        )
        return made.eval().to(device)
    if pretrained is True and variant is None:
        raise OptionError(
            "There is no published checkpoint of an architecture or config of your own.",
            remedy="Give pretrained the path of a checkpoint.",
        )
    path = _fetched(variant) if pretrained is True and variant is not None else Path(str(pretrained))
    loaded = with_config(load_checkpoint(path, weights=weights, key=key, out_indices=indices), config)
    held = loaded.architecture.num_classes
    same_head = num_classes in (None, held)
    expected = wanted if same_head else dataclasses.replace(wanted, num_classes=held)
    check_expectations(loaded, architecture=expected, num_classes=None)
    made = model_from_state(
        wanted,
        loaded.form,
        _completed(loaded, wanted, indices),
        out_indices=indices,
        preprocessing=preprocessing or _known_preprocessing(loaded, variant),
        class_names=resolve_class_names(
            loaded.class_names if same_head else None, wanted.num_classes, None, []
        ),
    ).requires_grad_()  # as an unloaded one is; the toolkit's own models are not
    if deploy:
        made.backbone.switch_to_deploy()
    return made.to(device)


def _identified(
    model: str | PathLike[str] | Architecture,
) -> tuple[Variant | None, ConfigFile | None, Architecture]:
    """The published model or the config that is meant, and the shape that it has."""
    if isinstance(model, Architecture):
        return None, None, model
    if str(model).endswith(".py"):
        config = read_config(str(model))
        return None, config, architecture_of(config)
    variant = get_variant(str(model))
    return variant, None, variant.architecture


def _class_names(config: ConfigFile | None, count: int) -> tuple[str, ...] | None:
    said = config.class_names if config is not None else None
    return resolve_class_names(said if said is not None and len(said) == count else None, count, None, [])


def _fetched(variant: Variant) -> Path:
    """The published file, where PyTorch and so mmengine keep what they download."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return Path(download_checkpoint(variant, DownloadOptions(folder=folder)).path)


def _completed(loaded: Checkpoint, wanted: Architecture, out_indices: tuple[int, ...]) -> dict[str, Tensor]:
    """The checkpoint's tensors, with initial ones for what was asked for beyond them."""
    shapes = wanted.shapes(loaded.form, out_indices)
    state = {key: value for key, value in loaded.state.items() if shapes.get(key) == tuple(value.shape)}
    new = [key for key in shapes if key not in state]
    if new:
        initial = RIFormer(wanted, loaded.form, out_indices=out_indices).state_dict()
        state |= {key: initial[key] for key in new}
        _LOG.warning(
            "%s does not hold %s: initial values are taken, which have to be trained",
            loaded.path,
            ", ".join(new),
        )
    return state


def _known_preprocessing(loaded: Checkpoint, variant: Variant | None) -> Preprocessing | None:
    """What training stored, else the published pipeline; None where nothing says the size of the images."""
    config = loaded.meta.get("cfg")
    stored = isinstance(config, str) and preprocessing_of(config) is not None
    try:
        return resolve_preprocessing(
            loaded, variant=None if stored else variant, image_size_px=None, notes=[]
        )
    except OptionError:
        return None


@overload
def inference_model(
    model: RIFormer | str, inputs: ImageInput, *, batch_size: int = ...
) -> InferenceResult: ...
@overload
def inference_model(
    model: RIFormer | str, inputs: Images, *, batch_size: int = ...
) -> list[InferenceResult]: ...
def inference_model(
    model: RIFormer | str, inputs: ImageInput | Images, *, batch_size: int = 1
) -> InferenceResult | list[InferenceResult]:
    """The classes of pictures.

    Args:
        model: From :func:`get_model`, or a published name, whose weights are fetched.
        inputs: A picture, or several in a list or tuple.
        batch_size: Pictures that the model takes at a time.

    Returns:
        The result of a picture; of several, a list in their order (mmpretrain gives the first one's).

    Raises:
        ImageError: A picture cannot be read, or is smaller than the crop.
        OptionError: The model's preprocessing is not known, an array is no (H, W, 3) uint8, or
            ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size must be at least 1, got {batch_size}.")
    used = get_model(model, pretrained=True) if isinstance(model, str) else model
    if used.preprocessing is None:
        raise OptionError(
            "What is done to pictures before this model sees them is not known: neither its name nor its "
            "checkpoint says so.",
            remedy="Give it to get_model: preprocessing=Preprocessing(crop_px=(H, W), ...).",
        )
    pictures: Sequence[ImageInput] = inputs if isinstance(inputs, (list, tuple)) else (inputs,)
    results: list[InferenceResult] = []
    for start in range(0, len(pictures), batch_size):
        results += _answers(used, used.preprocessing, pictures[start : start + batch_size])
    return results if isinstance(inputs, (list, tuple)) else results[0]


def _answers(
    model: RIFormer, preprocessing: Preprocessing, pictures: Sequence[ImageInput]
) -> list[InferenceResult]:
    fitted = [fit(_rgb(picture), preprocessing, name=_name(picture)) for picture in pictures]
    bgr = np.ascontiguousarray(np.stack(fitted)[..., ::-1].transpose(0, 3, 1, 2))
    with torch.inference_mode():
        inputs = model.data_preprocessor({"inputs": torch.from_numpy(bgr)})["inputs"]
        scores: NDArray[np.float32] = torch.softmax(model(inputs), 1).float().cpu().numpy()
    results = []
    for row in scores:
        label = int(row.argmax())
        result = InferenceResult(pred_scores=row, pred_label=label, pred_score=float(row[label]))
        if model.class_names is not None:
            result["pred_class"] = model.class_names[label]
        results.append(result)
    return results


def _name(picture: ImageInput) -> str:
    return str(picture) if isinstance(picture, (str, PathLike)) else "the picture"


def _rgb(picture: object) -> Rgb:
    """A picture as (H, W, 3) uint8 in RGB."""
    match picture:
        case str() | PathLike():
            return decode_image(Path(picture))
        case Image.Image():
            return rgb_of(picture)
        case np.ndarray() if picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8:
            return np.ascontiguousarray(picture[..., ::-1])
        case np.ndarray():
            found = f"{picture.shape} {picture.dtype}"
        case _:
            found = type(picture).__name__
    raise OptionError(
        f"A picture is a path, a PIL image or a (H, W, 3) uint8 array in BGR, got {found}.",
        remedy="Give several as a list, each on its own.",
    )
