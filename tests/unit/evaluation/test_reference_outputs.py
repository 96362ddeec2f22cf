from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from riformer_deploy.common.errors import BundleError
from riformer_deploy.evaluation import reference_outputs
from riformer_deploy.evaluation.reference_outputs import ReferenceOutputs, StoredReference, digest_of

PIXELS = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)


def _outputs(offset: float = 0.0) -> ReferenceOutputs:
    rng = np.random.default_rng(0)
    names = ("logits", "probabilities", "features")
    return ReferenceOutputs(
        outputs={name: rng.standard_normal((3, 5)) * (1 + offset) for name in names},
        stages={f"backbone.network.{number}.0": rng.standard_normal((2, 4, 3, 3)) for number in (0, 2)},
    )


def _stored(outputs: ReferenceOutputs, *, pixels: bool = True) -> StoredReference:
    return StoredReference(outputs=outputs, images_sha256="a" * 64, pixels=PIXELS if pixels else None)


@pytest.mark.parametrize("pixels", [True, False])
def test_what_is_kept_is_read_again_bit_by_bit(tmp_path: Path, *, pixels: bool) -> None:
    outputs = _outputs()
    _stored(outputs, pixels=pixels).save(tmp_path / "reference.npz")
    found = StoredReference.load(tmp_path / "reference.npz")
    assert found.images_sha256 == "a" * 64
    for mine, theirs in ((found.outputs.outputs, outputs.outputs), (found.outputs.stages, outputs.stages)):
        assert mine.keys() == theirs.keys()
        for name, values in theirs.items():
            assert mine[name].dtype == np.float64
            np.testing.assert_array_equal(mine[name], values)
    if pixels:
        np.testing.assert_array_equal(found.pixels, PIXELS)
    else:
        assert found.pixels is None


def test_stages_that_are_too_large_are_left_out_and_outputs_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = _outputs()
    size = sum(values.nbytes for values in outputs.stages.values())
    for limit, kept in ((size, set(outputs.stages)), (size - 1, set())):
        monkeypatch.setattr(reference_outputs, "MOST_STAGE_BYTES", limit)
        _stored(outputs).save(tmp_path / "reference.npz")
        found = StoredReference.load(tmp_path / "reference.npz").outputs
        assert (set(found.stages), set(found.outputs)) == (kept, set(outputs.outputs))


def test_maps_are_kept_and_left_out_as_stages_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _outputs()
    outputs = dataclasses.replace(
        plain, outputs={**plain.outputs, "stage1": np.ones((3, 4, 8, 8))}, stages={}
    )
    for limit, kept in ((10**6, {"stage1"}), (1000, set())):
        monkeypatch.setattr(reference_outputs, "MOST_STAGE_BYTES", limit)
        _stored(outputs).save(tmp_path / "reference.npz")
        found = StoredReference.load(tmp_path / "reference.npz").outputs
        assert set(found.outputs) == {*plain.outputs, *kept}


@pytest.mark.parametrize("damage", ["junk", "truncated", "another"])
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "reference.npz"
    _stored(_outputs()).save(path)
    content = path.read_bytes()
    if damage == "another":
        np.savez(path, logits=np.zeros(3))
    else:
        path.write_bytes(b"junk" if damage == "junk" else content[: len(content) // 2])
    with pytest.raises(BundleError, match="does not hold outputs of the reference") as caught:
        StoredReference.load(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("kind", ["compressed", "twice", "objects", "pipe"])
def test_members_that_unpack_to_more_or_are_there_twice_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "reference.npz"
    _stored(_outputs()).save(path)
    if kind == "compressed":
        with np.load(path) as stored:
            np.savez_compressed(path, **dict(stored))
    elif kind == "twice":
        with ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("logits.npy", archive.read("features.npy"))
    elif kind == "objects":
        np.savez(path, logits=np.array([{}], dtype=object))
    else:
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(BundleError, match="does not hold outputs of the reference"):
        StoredReference.load(path)


def test_the_distance_is_the_largest_of_any_array() -> None:
    assert _outputs().relative_l2_from(_outputs()) == 0
    assert _outputs(1e-8).relative_l2_from(_outputs()) == pytest.approx(1e-8, rel=1e-6)
    broken = _outputs()
    broken.stages["backbone.network.2.0"][0, 0, 0, 0] = math.nan
    assert broken.relative_l2_from(_outputs()) == math.inf
    for smaller in (
        dataclasses.replace(_outputs(), stages={}),
        dataclasses.replace(_outputs(), outputs={k: v[:2] for k, v in _outputs().outputs.items()}),
    ):
        assert _outputs().relative_l2_from(smaller) == math.inf
    # what was kept without stages is compared by its outputs
    assert dataclasses.replace(_outputs(), stages={}).relative_l2_from(_outputs()) == 0


def test_a_digest_tells_images_apart() -> None:
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    other = images.copy()
    other[1, 2, 1, 1] = np.nextafter(other[1, 2, 1, 1], np.float32(0))
    assert digest_of(images) == digest_of(images.copy())
    assert digest_of(images) != digest_of(other)
    assert digest_of(images[:, ::-1]) == digest_of(np.ascontiguousarray(images[:, ::-1]))
