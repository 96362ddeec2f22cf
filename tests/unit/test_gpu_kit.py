"""What the kit for GPU machines without network leaves out of libraries."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType

import pytest

PTX, MACHINE_CODE = 1, 2


@pytest.fixture
def kit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks" / "gpu_kit"))
    import prune_architectures  # noqa: PLC0415  # found only now

    return prune_architectures


def container(*entries: tuple[int, int, bytes]) -> bytes:
    """Kind, architecture and code of each."""
    parts = [
        struct.pack("<HHIQIIII", kind, 0x101, 64, len(code), 0, 0, 0, architecture) + bytes(32) + code
        for kind, architecture, code in entries
    ]
    assert all(len(part) >= 64 for part in parts)
    inner = b"".join(parts)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(inner)) + inner


def test_other_architectures_give_way_to_zeros_where_the_wanted_one_is_there(kit: ModuleType) -> None:
    one = container((MACHINE_CODE, 80, b"eighty"), (MACHINE_CODE, 90, b"ninety"), (PTX, 80, b"ptx"))
    content = b"before" + one + b"between" + one + b"after"
    expected = content.replace(b"eighty", bytes(6)).replace(b"ptx", bytes(3))
    assert kit.pruned(content, 90) == expected != content


@pytest.mark.parametrize(
    "entries",
    [
        ((MACHINE_CODE, 80, b"eighty"), (PTX, 80, b"ptx")),  # which 9.0 compiles
        ((MACHINE_CODE, 80, b"eighty"), (PTX, 90, b"ptx")),
        (),
    ],
)
def test_a_library_without_code_of_the_wanted_architecture_stays(
    kit: ModuleType, entries: tuple[tuple[int, int, bytes], ...]
) -> None:
    content = b"before" + container(*entries) + b"after"
    assert kit.pruned(content, 90) == content


@pytest.mark.parametrize("cut", [1, 8, 20, 70])
def test_what_does_not_follow_the_layout_stays(kit: ModuleType, cut: int) -> None:
    one = container((MACHINE_CODE, 80, b"eighty"), (MACHINE_CODE, 90, b"ninety"))
    for content in (one[:-cut], one[: 16 - cut % 16], one[:16] + b"\0" * (len(one) - 16)):
        assert kit.pruned(content, 90) == content
