"""Classify pictures with a bundle's ONNX file, NumPy, Pillow and ONNX Runtime: nothing of the toolkit.

python examples/embed_onnx.py BUNDLE PICTURE...
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def prepare(picture: Image.Image, how: dict) -> np.ndarray:
    """A picture as the network takes it, (3, H, W) float32."""
    image, (height, width) = picture.convert("RGB"), how["crop_px"]
    if edge := how["resize_short_edge_px"]:
        size = [int(edge * side / min(image.size)) for side in image.size]
        image = image.resize(size, Image.Resampling[how["interpolation"].upper()])
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32)
    pixels = pixels[..., ::-1] if how["channel_order"] == "BGR" else pixels
    return ((pixels - np.float32(how["mean"])) / np.float32(how["std"])).transpose(2, 0, 1)


def main(bundle: Path, pictures: list[str]) -> np.ndarray:
    """Scores of the pictures, (N, classes)."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    images = np.stack([prepare(Image.open(path), manifest["model"]["preprocessing"]) for path in pictures])
    session = onnxruntime.InferenceSession(bundle / manifest["onnx"][0]["file"]["path"])
    (logits,) = session.run(["logits"], {session.get_inputs()[0].name: images})
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    scores = raised / raised.sum(axis=1, keepdims=True)
    names = manifest["model"]["class_names"] or list(range(scores.shape[1]))
    for path, row in zip(pictures, scores, strict=True):
        print(f"{path}: {names[row.argmax()]} {row.max():.4f}")
    return scores


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
