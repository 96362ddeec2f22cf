"""Compares this toolkit with mmpretrain 1.2.0, live; `make peer` runs it in an environment of its own."""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "data")]

from _common import write_result  # noqa: E402  # beside the benchmarks
from weights import fill  # type: ignore[import-not-found]  # noqa: E402  # beside the golden data

from riformer_deploy.api.fuse import fuse_checkpoint  # noqa: E402
from riformer_deploy.common.serialization import JsonValue, to_jsonable  # noqa: E402
from riformer_deploy.data.decoding import decode_image  # noqa: E402
from riformer_deploy.data.transforms import fit, normalize  # noqa: E402
from riformer_deploy.evaluation.classification import first_classes, softmax  # noqa: E402
from riformer_deploy.model.architecture import Form  # noqa: E402
from riformer_deploy.model.network import model_from_state  # noqa: E402
from riformer_deploy.model.reparameterize import fuse  # noqa: E402
from riformer_deploy.model.variants import VARIANTS, Variant  # noqa: E402
from tests.peer.documented import compare_documented, configs_read_otherwise  # noqa: E402
from tests.peer.exported_maps import compare_maps  # noqa: E402
from tests.peer.opencv_pixels import compare_opencv  # noqa: E402
from tests.peer.pictures import pictures  # noqa: E402

warnings.simplefilter("ignore")  # mmpretrain's, of which there are many
# With a CPU-only PyTorch, torchvision imports once the operators that it looks for are there.
_OPERATORS = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
for _name in ("nms", "qnms"):
    _OPERATORS.define(  # type: ignore[no-untyped-call]
        f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )

import mmcv  # noqa: E402
import mmpretrain  # noqa: E402
import mmpretrain.models  # noqa: E402
from mmengine import Config  # noqa: E402
from mmengine.dataset import Compose  # noqa: E402
from mmengine.runner import load_checkpoint  # noqa: E402
from mmpretrain import ImageClassificationInferencer  # noqa: E402
from mmpretrain.registry import MODELS, TRANSFORMS  # noqa: E402

FAMILIES = ("riformer-s12_in1k", "riformer-m36_in1k", "riformer-s12_in1k-384", "riformer-m36_in1k-384")
CONFIGS = Path(mmpretrain.__file__).parent / ".mim" / "configs" / "riformer"


def config_of(variant: Variant) -> Any:
    """mmpretrain's own config of a variant."""
    return Config.fromfile(CONFIGS / f"{variant.config}.py")


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Largest differences of pixels by kind of file, and of the network's input."""

    compared: int
    by_kind: dict[str, int]
    largest_input_difference: float


def compare_preprocessing() -> Pixels:
    """Pixels before normalisation, and the network's input, of 50 pictures through four pipelines."""
    worst: dict[str, int] = {}
    worst_input = 0.0
    compared = 0
    with tempfile.TemporaryDirectory() as folder:
        files = list(pictures(Path(folder)))
        for name in FAMILIES:
            variant = VARIANTS[name]
            config = config_of(variant)
            steps = [step for step in config.test_pipeline if step.type != "LoadImageFromFile"]
            pipeline = Compose([TRANSFORMS.build(step) for step in steps])
            preprocessor = MODELS.build(
                {"type": "ClsDataPreprocessor", **dict(config.data_preprocessor.items())}
            )
            for kind, path in files:
                picture = mmcv.imread(str(path))
                packed = pipeline(
                    {"img": picture, "img_shape": picture.shape[:2], "ori_shape": picture.shape[:2]}
                )
                theirs = packed["inputs"].numpy().transpose(1, 2, 0)[..., ::-1]
                ours = fit(decode_image(path), variant.preprocessing)
                difference = int(np.abs(theirs.astype(int) - ours).max())
                worst[kind] = max(worst.get(kind, 0), difference)
                adapt_input = preprocessor({"inputs": packed["inputs"][None]})["inputs"].numpy()
                input_difference = np.abs(adapt_input - normalize([ours], variant.preprocessing)).max()
                worst_input = max(worst_input, float(input_difference))
                compared += 1
    return Pixels(compared=compared, by_kind=worst, largest_input_difference=worst_input)


def opencv_pixels() -> dict[str, float]:
    """The same pictures through pipelines that resize with OpenCV."""
    preprocessor = MODELS.build(
        {"type": "ClsDataPreprocessor", **dict(config_of(VARIANTS[FAMILIES[0]]).data_preprocessor.items())}
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [path for _, path in pictures(Path(folder))]
        return compare_opencv(
            files,
            mmcv.imread,
            lambda steps: Compose([TRANSFORMS.build(step) for step in steps]),
            preprocessor,
        )


def filled(variant: Variant) -> dict[str, torch.Tensor]:
    """Golden weights of a variant."""
    shapes = variant.architecture.shapes(Form.TRAINING)
    return {key: torch.from_numpy(fill(key, shape, 0)) for key, shape in shapes.items()}


def compare_models() -> dict[str, dict[str, float]]:
    """Logits of every variant in both forms, and fused checkpoints loaded back into mmpretrain, strictly."""
    rows: dict[str, dict[str, float]] = {}
    for variant in VARIANTS.values():
        state = filled(variant)
        config = config_of(variant).model
        config.pop("train_cfg", None)  # augmentation in training
        side = variant.image_size_px
        images = torch.from_numpy(
            np.random.Generator(np.random.PCG64(side)).standard_normal((1, 3, side, side)).astype(np.float32)
        )
        theirs = MODELS.build(config).eval()
        theirs.load_state_dict(state, strict=True)
        ours = model_from_state(variant.architecture, Form.TRAINING, state)
        with torch.inference_mode():
            expected = theirs(images)
            training = _apart(expected, ours(images))
            theirs.backbone.switch_to_deploy()
            switched = _apart(theirs(images), fuse(ours)(images))
        del theirs
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "training.pth", Path(folder) / "deploy.pth"
            torch.save({"state_dict": state, "meta": {}}, source)
            fuse_checkpoint(source, output)
            config.backbone.deploy = True
            back = MODELS.build(config).eval()
            load_checkpoint(back, str(output), map_location="cpu", strict=True)
        with torch.inference_mode():
            loaded = _apart(expected, back(images))
        rows[variant.name] = {
            "training_form": training, "deploy_form": switched, "fused_file_loaded_strictly": loaded,
        }  # fmt: skip
        print(variant.name, rows[variant.name], file=sys.stderr, flush=True)
    return rows


def _apart(expected: torch.Tensor, got: torch.Tensor) -> float:
    """Largest difference, relative to the largest value expected."""
    return float((expected - got).abs().max() / expected.abs().max())


def compare_predictions() -> dict[str, dict[str, float]]:
    """Scores of mmpretrain's inferencer on the golden picture and on random ones."""
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = [ROOT / "tests" / "data" / "astronaut.png", *(path for _, path in pictures(Path(folder)))][
            :15
        ]
        for name in FAMILIES:
            variant = VARIANTS[name]
            state = filled(variant)
            checkpoint = Path(folder) / "filled.pth"
            torch.save({"state_dict": state, "meta": {}}, checkpoint)
            inferencer = ImageClassificationInferencer(
                str(CONFIGS / f"{variant.config}.py"), pretrained=str(checkpoint), device="cpu"
            )
            model = model_from_state(variant.architecture, Form.TRAINING, state)
            apart, others = 0.0, 0
            for path in files:
                (theirs,) = inferencer(str(path))
                images = normalize([fit(decode_image(path), variant.preprocessing)], variant.preprocessing)
                with torch.inference_mode():
                    ours = softmax(model(torch.from_numpy(images)).numpy())
                apart = max(apart, float(np.abs(theirs["pred_scores"] - ours[0]).max()))
                others += int(first_classes(ours, 1)[0, 0]) != theirs["pred_label"]
            rows[name] = {"largest_score_difference": apart, "other_class": others, "pictures": len(files)}
            print(name, rows[name], file=sys.stderr, flush=True)
    return rows


def documented() -> dict[str, float]:
    """The documented lines on golden weights and the golden picture."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "filled.pth"
        torch.save({"state_dict": filled(VARIANTS["riformer-s12_in1k"]), "meta": {}}, checkpoint)
        return compare_documented(mmpretrain, checkpoint, ROOT / "tests" / "data" / "astronaut.png")


def exported_maps() -> dict[str, float]:
    """Maps of four stages of an exported graph beside those of mmpretrain's backbone in both forms."""
    variant = VARIANTS["riformer-s12_in1k"]
    own = dict(config_of(variant).model.backbone)
    return compare_maps(lambda **settings: MODELS.build({**own, **settings}), fill, variant)


def main() -> None:
    """Compare, write what was found, and fail where it is not equal."""
    lines = documented()
    print(lines, file=sys.stderr, flush=True)
    configs = sorted(CONFIGS.rglob("riformer-*.py"))
    otherwise = configs_read_otherwise(Config, configs)
    preprocessing = compare_preprocessing()
    print(preprocessing, file=sys.stderr, flush=True)
    resized = opencv_pixels()
    print(resized, file=sys.stderr, flush=True)
    predictions = compare_predictions()
    models = compare_models()
    maps = exported_maps()
    met = True
    targets: dict[str, JsonValue] = {}
    for what, value, limit in (
        ("largest pixel difference of 50 pictures", max(preprocessing.by_kind.values()), 0),
        (
            "largest pixel difference where OpenCV resizes",
            max(value for name, value in resized.items() if name != "network's input"),
            0,
        ),
        (
            "largest score difference",
            max(row["largest_score_difference"] for row in predictions.values()),
            1e-5,
        ),
        ("pictures with another class", sum(row["other_class"] for row in predictions.values()), 0),
        (
            "documented lines, largest score difference",
            max(value for name, value in lines.items() if name.startswith("pred_score")),
            1e-6,
        ),
        (
            "documented lines, largest difference of features, maps and logits",
            max(value for name, value in lines.items() if not name.startswith("pred_score")),
            1e-5,
        ),
        (f"{len(configs)} configs, settings that are read otherwise", len(otherwise), 0),
        ("exported maps, largest relative difference", max(maps.values()), 1e-4),
        ("largest relative logit difference", max(max(row.values()) for row in models.values()), 1e-4),
    ):
        targets[what] = {"value": float(value), "limit": limit, "sense": "at most", "met": value <= limit}
        met = met and value <= limit
    figures = {
        "documented_lines": lines,
        "configs_read_otherwise": otherwise,
        "preprocessing": preprocessing,
        "opencv_preprocessing": resized,
        "predictions": predictions,
        "models": models,
        "exported_maps": maps,
    }
    write_result(
        "peer",
        f"beside mmpretrain {mmpretrain.__version__} and mmcv {mmcv.__version__}, on the same weights",
        {name: to_jsonable(found) for name, found in figures.items()},
        targets,
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
