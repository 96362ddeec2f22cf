from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.api.parity_reference import parity_reference
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import fit
from riformer_deploy.serving.golden import encoded_pictures, golden_of
from tests.manifests import restate


@pytest.mark.parametrize("fixture", ["digits_bundle", "precise_bundle"])
def test_golden_images_give_the_outputs_that_are_kept_with_them(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    bundle = Bundle.open(request.getfixturevalue(fixture))  # one keeps pictures, the other samples
    golden = golden_of(bundle)
    runtime = OnnxRuntime(bundle.path_of(bundle.manifest.onnx[0].file), threads=1)
    np.testing.assert_allclose(
        runtime.run(golden.images)["logits"], golden.outputs["logits"], rtol=1e-4, atol=1e-5
    )


def test_images_that_the_outputs_are_not_of_are_refused(digits_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    changed = dataclasses.replace(bundle.manifest.model.preprocessing, channel_order="BGR")
    model = dataclasses.replace(bundle.manifest.model, preprocessing=changed)
    other = Bundle(bundle.directory, dataclasses.replace(bundle.manifest, model=model))
    with pytest.raises(BundleError, match="not of the images"):
        golden_of(other)
    none = Bundle(bundle.directory, dataclasses.replace(bundle.manifest, reference_outputs=None))
    with pytest.raises(BundleError, match="keeps no outputs"):
        golden_of(none)


@pytest.mark.parametrize("kind", ["archive", "text", "other size", "endless"])
def test_samples_that_are_something_else_are_refused(precise_bundle: Path, tmp_path: Path, kind: str) -> None:
    bundle = Path(shutil.copytree(precise_bundle, tmp_path / "bundle"))
    file = io.BytesIO()
    if kind == "archive":
        np.savez(file, images=np.zeros(3, np.float32))
    elif kind == "text":
        np.save(file, np.array(["x"]))
    else:
        np.save(file, np.zeros((2, 3, 8, 8), np.float32))
    content = file.getvalue()
    restate(bundle, "samples.npy", content.replace(b"(2,", b"(2000000000,") if kind == "endless" else content)
    with pytest.raises(BundleError, match=r"samples\.npy"):
        golden_of(Bundle.open(bundle))
    with pytest.raises(BundleError, match=r"samples\.npy"):
        parity_reference(Bundle.open(bundle))


def test_pictures_can_be_prepared_whether_they_are_resized_or_not() -> None:
    for preprocessing in (
        Preprocessing(resize_short_edge_px=None, crop_px=(64, 48)),
        Preprocessing(resize_short_edge_px=72, crop_px=(64, 64)),
    ):
        pictures = encoded_pictures(preprocessing)
        assert pictures == encoded_pictures(preprocessing)
        shapes = {fit(decode_image(item), preprocessing).shape for item in pictures}
        assert shapes == {(*preprocessing.crop_px, 3)}
