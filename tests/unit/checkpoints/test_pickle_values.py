"""The interpreter against Python's own pickle, and opcodes that ``torch.save`` does not write."""

from __future__ import annotations

import collections
import pickle
from typing import Any

import pytest

from riformer_deploy.checkpoints import pickle_values
from riformer_deploy.checkpoints.pickle_values import PickleDamageError, PickleReader, as_key
from riformer_deploy.checkpoints.placeholders import GlobalName, Placeholder


def reader(data: bytes) -> PickleReader:
    return PickleReader(data=data, call=lambda *call: call, persistent=lambda identity: ("stands", identity))


def read(data: bytes) -> Any:
    return reader(data).read()


SHARED = ["twice"]
PLAIN: list[Any] = [
    None, True, False, 0, 255, 65_535, -1, 2**31 - 1, -(2**31), 2**62, -(2**40), 1.5, float("inf"), "",
    "text", "\u00e9\u4e16", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2]], list(range(1500)), {},
    {"a": {"b": (1,)}}, {n: str(n) for n in range(1500)}, [SHARED, SHARED], {1: 2, None: 4, 1.5: 5},
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_plain_data_is_what_pickle_gives(value: Any) -> None:
    found = read(pickle.dumps(value, 2))
    assert found == value
    assert type(found) is type(value)


def test_what_is_shared_and_what_holds_itself_stays_so() -> None:
    first, second = read(pickle.dumps([SHARED, SHARED], 2))
    assert first is second
    endless: list[Any] = []
    endless.append(endless)
    found = read(pickle.dumps(endless, 2))
    assert found[0] is found


def test_a_call_is_a_name_and_its_arguments_and_state_is_left_out() -> None:
    assert read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.") == ("os.system", ("ls",))
    assert read(b"\x80\x02cown\nClass\n)\x81}X\x01\x00\x00\x00aK\x01sb.") == ("own.Class", ())
    assert read(b"\x80\x02X\x01\x00\x00\x00kQ.") == ("stands", "k")


def test_names_are_those_of_python_3_and_are_collected() -> None:
    found = reader(pickle.dumps([range, collections.OrderedDict], 2) + pickle.dumps(int, 2))
    one, other = found.read()
    assert isinstance(one, GlobalName)
    assert (one.stands_for, other.stands_for) == ("builtins.range", "collections.OrderedDict")
    assert found.read().stands_for == "builtins.int"  # the next pickle, right behind
    assert found.names == {"builtins.range", "collections.OrderedDict", "builtins.int"}


def test_bytes_that_are_no_text_are_spelled_out() -> None:
    assert read(b"\x80\x02X\x02\x00\x00\x00\xffa.") == "\\xffa"
    assert read(b"\x80\x02U\x02\x80b.") == "\\x80b"
    assert read(b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.") == "\\xed\\xa0\\x80"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut short"),
        (b"\x80\x02", "cut short"),
        (b"\x80\x02.", "cut short"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "cut short"),
        (b"\x80\x02\x87.", "cut short"),
        (b"\x80\x02t.", "cut short"),
        (b"\x80\x02h\x07.", "not there"),
        (b"\x80\x02q\x00.", "not there"),
        (b"\x80\x02b.", "not there"),
        (b"\x80\x02cname without end", "without end"),
        (b"\x80\x02K\x01)R.", "what is no function"),
        (b"\x80\x02cos\nsystem\nK\x01R.", "something else than arguments"),
        (b"\x80\x02K\x01K\x02a.", "appends to a int"),
        (b"\x80\x02]K\x01K\x02s.", "keys of a list"),
        (b"\x80\x02}(K\x01u.", "without a value"),
        (b"\x80\x04\x93.", "opcode 0x93"),  # STACK_GLOBAL, with which a name is put together
        (b"(ios\nsystem\n.", "opcode 0x69"),
        (b"\x80\x02B\x00\x00\x00\x00.", "opcode 0x42"),
    ],
)
def test_what_torch_save_does_not_write_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(PickleDamageError, match=why):
        read(data)


def test_opcodes_and_names_have_a_budget_that_the_pickles_of_a_file_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = b"\x80\x02N."
    pickles = PickleReader(data=one * 2, call=lambda *_: None, persistent=lambda _: None, opcodes_left=5)
    assert pickles.read() is None
    with pytest.raises(PickleDamageError, match="more than"):
        pickles.read()
    monkeypatch.setattr(pickle_values, "_MOST_NAMES", 2)
    with pytest.raises(PickleDamageError, match="more than 2 classes"):
        read(b"\x80\x02" + b"".join(b"ca\n%d\n" % n for n in range(3)) + b".")


def test_keys_that_hashing_recurses_into_or_that_collide_become_placeholders() -> None:
    placeholder = Placeholder("x")
    assert [as_key(value) for value in ("a", 1, None, b"b", placeholder)] == ["a", 1, None, b"b", placeholder]
    for value in ((1,), 2**63, -(2**63), 2**200):
        assert isinstance(as_key(value), Placeholder)
    (key,) = read(b"\x80\x02}N" + b"\x85" * 200_000 + b"Ns.")
    assert key.stands_for == "tuple"
