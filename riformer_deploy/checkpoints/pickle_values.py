"""Interprets pickles of protocol 2, as ``torch.save`` writes them, to plain data; nothing is imported or called.

PyTorch's restricted unpickler calls real classes and functions of a list, and some of these give memory that
nobody wrote or objects with state of the file's choice. Here a global is a name (a
:class:`~riformer_deploy.checkpoints.placeholders.GlobalName`), a call is looked up by that name among a
few that give plain data, and every other one gives a placeholder. Opcodes:
https://github.com/python/cpython/blob/main/Lib/pickletools.py.
"""

from __future__ import annotations

import _compat_pickle  # the renames of Python 2 that protocol 2 still writes
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from riformer_deploy.checkpoints.placeholders import GlobalName, Placeholder

MOST_OPCODES = 3_000_000
"""Of all pickles of a file; ten times what large training checkpoints have, and about three seconds."""
_LONGEST_NAME = 1_000
_MOST_NAMES = 1_000
_LARGEST_KEY = 2**63  # greater integers can be made to have equal hashes
_SCALARS = (bool, int, float, str, bytes, type(None))

Call = Callable[[str, tuple[Any, ...]], Any]
"""Given a global's full name and the arguments, what stands for the result."""
Load = Callable[[Any], Any]
"""Given a persistent id, what it stands for."""


class PickleDamageError(ValueError):
    """A pickle that ``torch.save`` would not write."""


@dataclass(kw_only=True)
class PickleReader:
    """Interprets pickles one after the other, which share a budget.

    Attributes:
        data: What the pickles are in.
        call: What stands for the result of a call.
        persistent: What a persistent id stands for.
        position: Where the next pickle begins, in bytes.
        names: Full names of all globals so far.
        opcodes_left: How many more opcodes are interpreted.
    """

    data: bytes | bytearray | memoryview
    call: Call
    persistent: Load
    position: int = 0
    names: set[str] = field(default_factory=set)
    opcodes_left: int = MOST_OPCODES

    def read(self) -> Any:
        """The value of the pickle at ``position``, which moves behind it.

        Returns:
            None, numbers, text, bytes, lists, tuples, sets, dictionaries, what ``call`` and ``persistent``
            gave, and placeholders. Parts may be shared, and may contain themselves.

        Raises:
            PickleDamageError: It ends early, has an opcode that ``torch.save`` does not write, or more than
                :data:`MOST_OPCODES`.
        """
        machine = _Machine(self)
        try:
            return machine.run()
        except (IndexError, KeyError, struct.error) as err:
            raise PickleDamageError("its pickle is cut short or refers to what is not there") from err


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, reader: PickleReader) -> None:
        self._reader = reader
        self._data = memoryview(reader.data)
        self._at = reader.position
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, steps = self._data, _STEPS
        for _ in range(self._reader.opcodes_left):
            code = data[self._at]
            self._at += 1
            self._reader.opcodes_left -= 1
            if code == _STOP:
                self._reader.position = self._at
                return self._stack.pop()
            step = steps.get(code)
            if step is None:
                raise PickleDamageError(
                    f"its pickle has the opcode {code:#04x}, which torch.save does not write"
                )
            step(self)
        raise PickleDamageError(f"its pickles have more than {MOST_OPCODES:,} opcodes")

    def _take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise PickleDamageError("its pickle is cut short")
        return bytes(self._data[begin : self._at])

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self, size: int) -> str:
        # what is no text, lone surrogates included, is spelled out: it must be printable and storable later
        return self._take(size).decode("utf-8", "backslashreplace")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def protocol(self) -> None:
        self._take(1)

    def mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def global_(self) -> None:
        words = []
        for _ in range(2):
            line = bytes(self._data[self._at : self._at + _LONGEST_NAME]).partition(b"\n")
            if not line[1]:
                raise PickleDamageError("its pickle names something by a name without end")
            self._at += len(line[0]) + 1
            words.append(line[0].decode("utf-8", "backslashreplace"))
        module, name = words
        if (module, name) in _compat_pickle.NAME_MAPPING:
            module, name = _compat_pickle.NAME_MAPPING[module, name]
        else:
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        names = self._reader.names
        names.add(f"{module}.{name}")
        if len(names) > _MOST_NAMES:
            raise PickleDamageError(f"its pickles name more than {_MOST_NAMES:,} classes and functions")
        self._push(GlobalName(f"{module}.{name}"))

    def reduce(self) -> None:
        """A call; NEWOBJ, a call of a class, is the same here."""
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, GlobalName):
            raise PickleDamageError("its pickle calls what is no function")
        if type(arguments) is not tuple:
            raise PickleDamageError("its pickle calls a function with something else than arguments")
        self._push(self._reader.call(function.stands_for, arguments))

    def build(self) -> None:
        self._stack.pop()  # state beside an object: attributes of a dictionary, or what a placeholder ignores
        self._stack[-1]

    def append(self) -> None:
        self._extend([self._stack.pop()])

    def appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target += items
        elif not isinstance(target, Placeholder):
            raise PickleDamageError(f"its pickle appends to a {type(target).__name__}")

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def set_items(self) -> None:
        self._update(self._to_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2:
            raise PickleDamageError("its pickle sets a key without a value")
        if type(target) is dict:
            target.update(zip(map(as_key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Placeholder):
            raise PickleDamageError(f"its pickle sets keys of a {type(target).__name__}")

    def tuple_to_mark(self) -> None:
        self._push(tuple(self._to_mark()))

    def tuple_of(self, size: int) -> None:
        if len(self._stack) < size:
            raise PickleDamageError("its pickle is cut short")
        items = self._stack[-size:]
        del self._stack[-size:]
        self._push(tuple(items))

    def long(self) -> None:
        self._push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def text(self) -> None:
        self._push(self._text(self._number("<I")))

    def short_string(self) -> None:
        self._push(self._text(self._number("<B")))

    def get(self, form: str) -> None:
        self._push(self._memo[self._number(form)])

    def put(self, form: str) -> None:
        self._memo[self._number(form)] = self._stack[-1]

    def persistent(self) -> None:
        self._push(self._reader.persistent(self._stack.pop()))

    def constant(self, make: Callable[[], Any]) -> None:
        self._push(make())

    def plain_number(self, form: str) -> None:
        self._push(self._number(form))


def as_key(value: Any) -> Any:
    """A dictionary's key or a set's member that hashing cannot be made slow by; a placeholder for others.

    Hashing a tuple recurses through all that is in it, and the interpreter of Python 3.11 crashes where it is
    nested deeply.
    """
    if type(value) in _SCALARS and not (type(value) is int and abs(value) >= _LARGEST_KEY):
        return value
    return value if isinstance(value, Placeholder) else Placeholder(type(value).__name__)


_STOP = ord(".")
_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    ord("("): _Machine.mark,
    ord("c"): _Machine.global_,
    ord("R"): _Machine.reduce,
    0x81: _Machine.reduce,
    ord("b"): _Machine.build,
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("t"): _Machine.tuple_to_mark,
    ord(")"): lambda machine: machine.constant(tuple),
    0x85: lambda machine: machine.tuple_of(1),
    0x86: lambda machine: machine.tuple_of(2),
    0x87: lambda machine: machine.tuple_of(3),
    ord("N"): lambda machine: machine.constant(lambda: None),
    0x88: lambda machine: machine.constant(lambda: True),
    0x89: lambda machine: machine.constant(lambda: False),
    ord("]"): lambda machine: machine.constant(list),
    ord("}"): lambda machine: machine.constant(dict),
    ord("J"): lambda machine: machine.plain_number("<i"),
    ord("K"): lambda machine: machine.plain_number("<B"),
    ord("M"): lambda machine: machine.plain_number("<H"),
    ord("G"): lambda machine: machine.plain_number(">d"),
    0x8A: _Machine.long,
    ord("X"): _Machine.text,
    ord("U"): _Machine.short_string,
    ord("h"): lambda machine: machine.get("<B"),
    ord("j"): lambda machine: machine.get("<I"),
    ord("q"): lambda machine: machine.put("<B"),
    ord("r"): lambda machine: machine.put("<I"),
    ord("Q"): _Machine.persistent,
}
"""The opcodes of protocol 2 that ``torch.save`` writes. STACK_GLOBAL and INST, with which a name could be
put together, are not among them."""
