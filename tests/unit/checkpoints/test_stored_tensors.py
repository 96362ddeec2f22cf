from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, _weights_only_unpickler

from riformer_deploy.checkpoints.pickle_values import PickleDamageError
from riformer_deploy.checkpoints.placeholders import GlobalName, Placeholder, UnusableTensor
from riformer_deploy.checkpoints.stored_tensors import Storage, call_by_name, is_known

REBUILD = "torch._utils._rebuild_tensor_v2"
TWELVE = Storage(dtype=torch.float32, data=memoryview(bytearray(torch.arange(12.0).numpy().tobytes())))


def rebuilt(offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    return call_by_name(REBUILD, (TWELVE, offset, size, stride, False, {}, *rest))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (3, 4), (4, 1)),
        (0, (4, 3), (1, 4)),
        (2, (2, 2), (5, 2)),
        (11, (1, 1), (0, 7)),
        (0, (), ()),
        (3, (2, 0), (1, 1)),
    ],
)
def test_a_tensor_is_the_view_of_its_storage_that_pytorch_gives(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    found = rebuilt(offset, size, stride)
    assert isinstance(found, Tensor)
    assert torch.equal(found, torch.as_strided(torch.arange(12.0), size, stride, offset))


@pytest.mark.parametrize(
    ("offset", "size", "stride", "why"),
    [
        (0, (3, 5), (5, 1), "beyond its storage"),
        (10, (3,), (1,), "beyond its storage"),
        (0, (12, 12), (0, 1), "more than once"),
        (0, (3, 2), (1, 1), "more than once"),
        (0, (2, 2), (2, 2), "more than once"),
        (-1, (2,), (1,), "not all counts"),
        (0, (2,), (-1,), "not all counts"),
        (0, (2**63,), (1,), "not all counts"),
        (0, (True,), (1,), "not all counts"),
        (0, (2, 2), (1,), "2 sizes and 1 strides"),
    ],
)
def test_values_that_are_not_in_the_file_one_by_one_make_no_tensor(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], why: str
) -> None:
    found = rebuilt(offset, size, stride)
    assert type(found) is UnusableTensor
    assert why in found.why


def test_negated_sparse_and_uninitialised_tensors_are_none() -> None:
    assert type(rebuilt(0, (2,), (1,), {"neg": True})) is UnusableTensor
    for name in ("torch.FloatTensor", "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_qtensor"):
        assert type(call_by_name(name, (8, 4, 1, 1))) is UnusableTensor
    with pytest.raises(PickleDamageError):
        rebuilt(0, [2], [1])


def test_parameters_and_typed_views_are_what_they_wrap() -> None:
    tensor = rebuilt(0, (2,), (1,))
    assert call_by_name("torch._utils._rebuild_parameter", (tensor, True, {})) is tensor
    half = call_by_name(
        "torch._utils._rebuild_tensor_v3", (TWELVE, 0, (24,), (1,), False, {}, GlobalName("torch.float16"))
    )
    assert (half.dtype, half.shape) == (torch.float16, (24,))
    inner: tuple[Any, ...] = (
        GlobalName(REBUILD),
        GlobalName("torch.nn.parameter.Parameter"),
        (TWELVE, 0, (2,), (1,), False, {}),
        {},
    )
    assert torch.equal(call_by_name("torch._tensor._rebuild_from_type_v2", inner), tensor)


def test_any_other_call_gives_a_placeholder_of_its_name() -> None:
    found = call_by_name("builtins.getattr", (1, "system"))
    assert (type(found), found.stands_for) == (Placeholder, "builtins.getattr")


def test_all_that_pytorch_s_own_unpickler_knows_is_known_or_inert() -> None:
    names = _weights_only_unpickler._get_allowed_globals()
    assert {name for name in names if not is_known(name)} == {
        "collections.Counter", "builtins.set", "builtins.complex",
    }  # fmt: skip
