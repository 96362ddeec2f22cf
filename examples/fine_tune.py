"""Fine-tune a RIFormer, fuse it, export it: from ten digits to "even or odd" in a few steps.

    python examples/fine_tune.py [-o FOLDER] [--steps N]

With a published model the first line of ``main`` is ``get_model("riformer-s12_in1k", pretrained=True,
num_classes=2)``; the rest stays as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from riformer_deploy import RIFormer, export_checkpoint, get_model, load_checkpoint
from riformer_deploy.api.export import ExportOptions
from riformer_deploy.data.preprocessing import Preprocessing

HERE = Path(__file__).resolve().parent
CLASSES = ("even", "odd")


def pictures(model: RIFormer) -> tuple[Tensor, Tensor]:
    """The digits as the model takes them, (N, 3, 64, 64), and whether each is odd, (N,)."""
    files = sorted((HERE / "digits" / "val").glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    bgr = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)[:, ::-1]))
    labels = torch.tensor([int(path.parent.name) % 2 for path in files])
    return model.data_preprocessor({"inputs": bgr})["inputs"], labels


def fine_tune(model: RIFormer, images: Tensor, labels: Tensor, *, steps: int, batch: int = 32) -> list[float]:
    """Train all parameters with AdamW; the losses, step by step."""
    chance = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=chance)
        loss = cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch's own
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def accuracy(model: RIFormer, images: Tensor, labels: Tensor) -> float:
    """The share of pictures whose first class is right."""
    with torch.inference_mode():
        return float((model(images).argmax(1) == labels).float().mean())


def main(output: Path, steps: int, *, every: int = 1, batch: int = 32) -> list[float]:
    """Fine-tune on every so many pictures, save, fuse, export; the losses."""
    torch.manual_seed(0)  # the new head's initial values
    start = HERE / "riformer-digits.pth"
    model = get_model(
        load_checkpoint(start).architecture,
        pretrained=start,
        num_classes=len(CLASSES),
        preprocessing=Preprocessing(resize_short_edge_px=None, crop_px=(64, 64)),
    )
    images, labels = (values[::every] for values in pictures(model))
    seen, unseen = slice(0, None, 2), slice(1, None, 2)  # every second picture is kept for testing
    losses = fine_tune(model, images[seen], labels[seen], steps=steps, batch=batch)
    print(f"loss: {losses[0]:.3f} -> {losses[-1]:.3f} in {steps} steps")
    print(f"right on unseen pictures: {accuracy(model, images[unseen], labels[unseen]):.1%}")

    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "even-or-odd.pth"
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": list(CLASSES)}}}, checkpoint
    )
    model.backbone.switch_to_deploy()
    print(f"right once fused: {accuracy(model, images[unseen], labels[unseen]):.1%}")

    # From the file in training form: the bundle then holds what it is compared with.
    report = export_checkpoint(
        ExportOptions(checkpoint=checkpoint, output=output / "even-or-odd", image_size_px=(64, 64))
    )
    print(f"exported to {report.bundle}: parity {report.status}")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, default=Path("fine-tuned"))
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    main(given.output, given.steps)
