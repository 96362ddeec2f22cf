from __future__ import annotations

import os
from pathlib import Path

import pytest

from riformer_deploy.data.image_files import PictureFiles
from riformer_deploy.serving.ray_pictures import EncodedPictures, is_misread


@pytest.mark.parametrize(
    "name",
    [
        "a b.png",
        "ü.png",
        "x?.png",
        "y#z.png",
        "p;q.png",
        "%41.png",
        "_u.png",
        "k=v.png",
        "*[b].png",
        "c:d.png",
    ],
)
def test_names_that_a_url_could_not_have_are_read(name: str) -> None:
    assert not is_misread(f"/pictures/{name}")


@pytest.mark.parametrize(
    "path",
    ["/p/a\nb.png", "/p/a\tb.png", "/p/a.png?", "//p/a.png", "/p/a.GZ", os.fsdecode(b"/p/latin\xe4.png")],
)
def test_names_that_ray_data_would_change_are_seen(path: str) -> None:
    assert is_misread(path)


def test_encoded_pictures_are_the_files(repository: Path) -> None:
    path = repository / "examples" / "digits" / "val" / "3" / "010.png"
    encoded = EncodedPictures(paths=[str(path)], contents=[path.read_bytes()])
    files = PictureFiles(paths=(path,))
    assert len(encoded) == 1
    assert encoded.picture(0).tobytes() == files.picture(0).tobytes()
    assert encoded.name_of(0) == f"\0{path}"
