from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.data.array_files import ArrayFileError, open_arrays, parse_array


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [">f4", "<u2", "?", "f8"])
def test_arrays_are_read_as_numpy_reads_them_and_may_be_written_to(
    tmp_path: Path, order: str, dtype: str
) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)  # type: ignore[call-overload]  # as text
    np.savez_compressed(tmp_path / "a.npz", x=array, y=np.zeros(()))
    np.save(tmp_path / "a.npy", array)
    with open_arrays(tmp_path / "a.npz") as stored:
        found = (stored.read("x"), parse_array((tmp_path / "a.npy").read_bytes()))
        assert stored.read("y").shape == ()
    for values in found:
        np.testing.assert_array_equal(values, array)
        assert values.dtype == array.dtype
        assert values.flags.writeable


def test_rows_are_read_some_at_a_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(10).reshape(5, 2))
    with open_arrays(tmp_path / "a.npz") as stored:
        assert [len(rows) for rows in stored.rows("x", 2)] == [2, 2, 1]


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
    ],
)
def test_a_header_that_states_other_values_than_are_stored_is_refused(tmp_path: Path, header: str) -> None:
    text = header.ljust(117).encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(4)
    with pytest.raises(ValueError, match=r"\w"):
        parse_array(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ValueError, match=r"\w"), open_arrays(tmp_path / "a.npz"):
        pass


def test_members_that_are_there_twice_or_compressed_in_other_ways_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    content = (tmp_path / "a.npy").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ArrayFileError, match="otherwise than by deflate"), open_arrays(tmp_path / "a.npz"):
        pass
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", content)
    with pytest.raises(ArrayFileError, match="x twice"), open_arrays(tmp_path / "a.npz"):
        pass
