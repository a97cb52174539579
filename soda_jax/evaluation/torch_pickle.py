"""What a pickle of PyTorch tensors describes, found without unpickling: nothing is executed.

A pickle is a program, and it may name any function to be called. The standard library's
disassembler lists its operations; the small machine here follows the few that a dictionary of
tensors needs, and refuses every other name or operation.
"""

import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO

BFLOAT16 = "bfloat16"  # NumPy has no such type: two bytes, the upper half of a float32
MAX_AXES = 8  # [D]


class Refused(ValueError):
    """What is wrong with a file, in words; a reader puts the file's name before it."""


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file: `count` of them, of which [start, start + length) are seen."""

    key: str
    dtype: str
    count: int
    start: int
    length: int


@dataclass(frozen=True)
class Tensor:
    """Where the numbers of a tensor lie in a storage; offset and strides count numbers.

    Raises:
      Refused: it reaches beyond its storage, is empty, or has more numbers than its storage.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self):
        for numbers in (self.shape, self.strides):
            if not isinstance(numbers, tuple) or not all(_is_count(number) for number in numbers):
                raise Refused("a tensor's shape and strides must be integers from 0")
        if len(self.shape) != len(self.strides) or len(self.shape) > MAX_AXES:
            raise Refused(f"a tensor has {len(self.shape)} axes and {len(self.strides)} strides")
        if 0 in self.shape:
            raise Refused("a tensor is empty")
        elements, last = 1, self.offset
        for size, stride in zip(self.shape, self.strides, strict=True):
            elements, last = elements * size, last + (size - 1) * stride
        length = self.storage.length
        if not _is_count(self.offset) or last >= length or elements > length:
            raise Refused(f"a tensor lies out of the bounds of its storage of {length} numbers")


@dataclass(frozen=True)
class _StorageType:
    dtype: str


def follow(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Follows one pickle from the stream's place on, to its end.

    Returns:
      what it describes, in dicts, lists, tuples, strings, numbers and `Tensor`s; and the storages
      that it mentions, whole, by key.

    Raises:
      Refused: it asks for a function, a class or an operation that tensors don't need.
      ValueError, LookupError, TypeError, AttributeError: it is damaged.
    """
    stack, marks, memo, storages = [], [], {}, {}

    def pop(count):
        if count > len(stack) - (marks[-1] if marks else 0):
            raise Refused("its pickle is damaged: it takes what was never put down")
        taken = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return taken

    def pop_to_mark():
        return pop(len(stack) - marks[-1]), marks.pop()

    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_to_mark()[0]))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode.name[-1]))))
            case "APPEND":
                _list(stack, -2).extend(pop(1))
            case "APPENDS":
                items, _ = pop_to_mark()
                _list(stack, -1).extend(items)
            case "SETITEM":
                pair = pop(2)
                _update(stack[-1], pair)
            case "SETITEMS":
                items, _ = pop_to_mark()
                _update(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_find(*pop(2)))
            case "BINPERSID":
                stack.append(_storage(pop(1)[0], storages))
            case "REDUCE":
                function, arguments = pop(2)
                if not any(function is allowed for allowed in _FUNCTIONS.values()):
                    raise Refused("its pickle calls what is no function")
                stack.append(function(*arguments))
            case "BUILD":
                # A state dict's versions and a parameter's hooks: no numbers are in them.
                pop(1)
                if not isinstance(stack[-1], dict | Tensor):
                    raise Refused(
                        "its pickle sets the state of what is no dictionary and no tensor"
                    )
            case name:
                raise Refused(f"its pickle holds the operation {name}, which no weights need")
    if marks or len(stack) != 1:
        raise Refused("its pickle is damaged: it ends before all is put together")
    result = stack[0]
    return result, storages


def _is_count(value):
    return type(value) is int and value >= 0


def _list(stack, place):
    if not isinstance(stack[place], list):
        raise Refused("its pickle appends to what is no list")
    return stack[place]


def _update(target, items):
    if not isinstance(target, dict) or len(items) % 2:
        raise Refused("its pickle puts items into what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Nothing else is hashed: the hash of a deep tuple could overflow the stack.
        if not isinstance(key, str | int):
            raise Refused("a key of its dictionary is neither a string nor an integer")
        target[key] = value


def _ordered_dict(pairs=()):
    ordered = {}
    for pair in pairs:
        _update(ordered, list(pair))
    return ordered


def _rebuild_tensor(storage, offset, shape, strides, *_unused):
    if not isinstance(storage, Storage):
        raise Refused("a tensor has no storage")
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor, *_unused):
    if not isinstance(tensor, Tensor):
        raise Refused("a parameter is no tensor")
    return tensor


_FUNCTIONS = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
}
_TYPES = {
    ("torch", f"{name}Storage"): _StorageType(dtype)
    for name, dtype in {
        "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": BFLOAT16,
        "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1",
    }.items()
}  # fmt: skip
_GLOBALS = {**_FUNCTIONS, **_TYPES}


def _find(module, name):
    """The stand-in for a global: only these few exist."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refused("its pickle names a function by what is no string")
    found = _GLOBALS.get((module, name))
    if found is None:
        raise Refused(
            f"its pickle asks for {module:.80}.{name:.80}, which no weights need; nothing was run"
        )
    return found


def _storage(identity, storages):
    """The storage of a persistent id: ("storage", type, key, device, count), then a view or None.

    Files before PyTorch 0.4 may see a part of a storage: the view is (key, start, length).
    """
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise Refused("its pickle refers to what is no storage")
    _, kind, key, _, count, *view = identity
    if not isinstance(kind, _StorageType) or not isinstance(key, str) or not _is_count(count):
        raise Refused("a storage is described wrongly")
    whole = Storage(key, kind.dtype, count, 0, count)
    if storages.setdefault(key, whole) != whole:
        raise Refused(f"its storage {key!r:.80} is described in two ways")
    if not view or view[0] is None:
        return whole
    _, start, length = view[0]
    if not _is_count(start) or not _is_count(length) or start + length > count:
        raise Refused(f"a view lies out of the bounds of its storage of {count} numbers")
    return Storage(key, kind.dtype, count, start, length)
