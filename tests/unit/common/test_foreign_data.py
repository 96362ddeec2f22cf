from __future__ import annotations

import pytest

from riformer_deploy.common.errors import DatasetError, ImageError
from riformer_deploy.common.foreign_data import foreign_data


@pytest.mark.parametrize(
    "raised", [KeyError("x"), RecursionError("deep"), MemoryError(), OSError(5, "bad disk")]
)
def test_whatever_a_parser_raises_becomes_the_error_of_the_file(raised: Exception) -> None:
    with (
        pytest.raises(DatasetError, match=r"^a\.npz .* an \.npz file: .+\nWrite it anew$") as caught,
        foreign_data("a.npz", DatasetError, kind="an .npz file", remedy="Write it anew"),
    ):
        raise raised
    assert caught.value.__cause__ is raised


def test_the_toolkit_s_own_errors_and_interruptions_pass() -> None:
    for own in (ImageError("x"), KeyboardInterrupt()):
        with pytest.raises(type(own)), foreign_data("a", DatasetError, kind="a thing"):
            raise own
