"""The only reader of pickles: it returns arrays, tensors and plain values, and never imports a name.

A pickle is a program. Three limits apply before and while it runs:

- Names. `find_class` knows only the few names that pickled arrays and tensors need. Each gives a replacement
  that checks bytes, shape and type. No pickle calls numpy's or torch's own functions, because some of them
  allocate without limit or return uninitialised memory. An array is filled once; nothing else can be changed.
- Time and memory of the program. `scan` follows it with pickletools first. The number of steps is limited,
  because an empty list is one byte in the file and 56 in memory. A key must be text or an integer of 64 bits:
  the hash of a tuple of tuples takes time that doubles with each level, and large integers can be chosen to
  collide.
- Bytes. `Budget` limits what the replacements copy: many tensors may be views of one storage.

Files of torch.save go through `scan`, then `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from pickle import Unpickler, UnpicklingError  # noqa: TID251  # restricted by its find_class
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeGuard
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from emi_models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MAX_BYTES", "Plain", "read_pickle", "scan", "unpickle"]

MAX_BYTES: Final = 1 << 30  # of one clip's file: 20 minutes of 1027 values at 50 Hz are a quarter of it
DEPTH: Final = 8  # lists in lists in dicts: feature files nest two or three deep
# A clip of arrays takes some hundred steps; a list of 600,000 numbers is still read.
MAX_STEPS: Final = 1_000_000
MAX_BITS: Final = 1024  # of an integer that is a value
KEY_BITS: Final = 64  # of an integer that is a key: few of these have the same hash
# In a torch.save file that is not a zip: magic, version, machine, data, names.
TORCH_PICKLES: Final = 5
BUDGET_TIMES: Final = 4  # a byte may be text first, then an array, then a tensor
BUDGET_FREE: Final = 64 << 20  # bytes: small files may share one storage among many tensors
ZIP: Final = b"PK\x03\x04"

_OTHER, _KEY, _MARK = range(3)  # kinds of values on the stack that `scan` follows
_KEY_KINDS: Final = (
    *(pickletools.pyint, pickletools.pylong, pickletools.pyinteger_or_bool, pickletools.pybool),
    *(pickletools.pystring, pickletools.pybytes_or_str, pickletools.pyunicode),
)
_Leaf: TypeAlias = str | int | float  # bool is an int
Plain: TypeAlias = (
    "NDArray[np.generic] | _Leaf | list[Plain] | tuple[Plain, ...] | dict[str | int, Plain] | None"
)

# What an unpickler raises on invalid bytes, in addition to its own error.
_NONSENSE: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(RuntimeError, TypeError, UnpicklingError, ValueError, BadZipFile, OSError),
)
_TORCH: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before it wrote zip files
_REMEDY: Final = "only numpy arrays, torch tensors and plain values are read; save it as .npy or .safetensors"


class Refusal(Exception):  # noqa: N818  # becomes a DataError with the file's name
    """A pickle contains something that arrays do not need; the message says what."""


def scan(data: bytes, pickles: int = 1) -> int:
    """Follow the first pickles in `data` without running them; return how many steps they take.

    Raises:
        Refusal: they take more than `MAX_STEPS`, or make a set, an integer of more than `MAX_BITS`, or a key
            that is neither text nor an integer of `KEY_BITS`.
        ValueError, LookupError: they are invalid.
    """
    stream, steps = io.BytesIO(data), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in names
        for _ in range(pickles):
            stack: list[int] = []
            memo: dict[int, int] = {}
            first = steps
            for opcode, argument, _ in pickletools.genops(stream):
                steps += 1
                if steps > MAX_STEPS:
                    raise Refusal(f"it takes more than {MAX_STEPS} steps to read")
                _step(opcode, argument, stack, memo, steps - first)
    return steps


def _step(
    opcode: pickletools.OpcodeInfo, argument: object, stack: list[int], memo: dict[int, int], steps: int
) -> None:
    """Apply one opcode to the stack and the memo."""
    match opcode.name:
        case "EMPTY_SET" | "ADDITEMS" | "FROZENSET":
            raise Refusal("it holds a set")
        case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
            place = len(memo) if opcode.name == "MEMOIZE" else argument
            # The unpickler would allocate all places up to this one.
            if not isinstance(place, int) or place >= steps:
                raise Refusal(f"it stores value {place} after {steps - 1} steps")
            memo[place] = stack[-1]
        case "GET" | "BINGET" | "LONG_BINGET":
            stack.append(memo[int(str(argument))])
        case "MARK":
            stack.append(_MARK)
        case "DUP":
            stack.append(stack[-1])
        case "POP":
            stack.pop()
        case _:
            _check_keys(opcode.name, _taken(opcode, stack))
            for kind in opcode.stack_after:
                bits = argument.bit_length() if isinstance(argument, int) and kind in _KEY_KINDS else 0
                if bits > MAX_BITS:
                    raise Refusal(f"it holds an integer of {bits} bits")
                stack.append(_KEY if kind in _KEY_KINDS and bits <= KEY_BITS else _OTHER)


def _taken(opcode: pickletools.OpcodeInfo, stack: list[int]) -> list[int]:
    """Take an opcode's arguments from the stack; if it uses a mark, those after the mark."""
    count, arguments = len(opcode.stack_before), None
    if pickletools.markobject in opcode.stack_before:
        # From the end and without a copy: the cost depends only on the number of arguments.
        mark = next((at for at in range(len(stack) - 1, -1, -1) if stack[at] == _MARK), None)
        if mark is None:
            raise ValueError("a mark is missing")
        arguments = stack[mark + 1 :]
        del stack[mark:]
        count = opcode.stack_before.index(pickletools.markobject)
    taken = stack[len(stack) - count :]
    if count > len(stack) or _MARK in taken:
        raise ValueError("the stack is empty")
    del stack[len(stack) - count :]
    return taken if arguments is None else arguments


def _check_keys(name: str, taken: list[int]) -> None:
    keys = {"SETITEM": taken[1:2], "SETITEMS": taken[::2], "DICT": taken[::2]}.get(name, [])
    if any(kind != _KEY for kind in keys):
        raise Refusal(f"it has a key that is neither text nor an integer of {KEY_BITS} bits")


class Budget:
    """How many bytes the replacements may still process for one file. Bytes read twice count twice."""

    def __init__(self, size: int) -> None:
        self.left = BUDGET_TIMES * size + BUDGET_FREE

    def charge(self, size: int) -> None:
        """Subtract `size` bytes; raises Refusal if none are left."""
        self.left -= size
        if self.left < 0:
            raise Refusal("it uses its bytes far more often than a file of arrays does")


_budget: ContextVar[Budget | None] = ContextVar("_budget", default=None)


@contextmanager
def budgeted(size: int) -> Iterator[Budget]:
    """A context with the budget of a file of this size for the bytes that replacements process."""
    budget = Budget(size)
    token = _budget.set(budget)
    try:
        yield budget
    finally:
        _budget.reset(token)


def stand_in(module: str, name: str) -> object:
    """The replacement for `module.name` in a pickle.

    Raises:
        Refusal: arrays and tensors do not need that name.
    """
    # numpy 2 moved its core; pickles of both have the old or the new name.
    found = _NAMES.get((module.replace("numpy._core.", "numpy.core."), name))
    if found is None:
        raise Refusal(f"it asks for {module}.{name}")
    return found


def load_torch(data: bytes) -> object:
    """Load a file of `torch.save` with PyTorch's restricted unpickler, on the CPU, without warnings."""
    if data.startswith(ZIP):
        with ZipFile(io.BytesIO(data)) as archive:
            if (budget := _budget.get()) is not None:
                budget.charge(sum(entry.file_size for entry in archive.infolist()))
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    scan(archive.read(name))
    else:
        scan(data, TORCH_PICKLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return found


class Held:
    """An array that a pickle may fill once; it can do nothing else with it."""

    __slots__ = ("_array",)

    def __init__(self, array: NDArray[np.generic] | None = None) -> None:
        self._array = array

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, ElementType() as kind, bool() | int() as fortran, raw):
                if self._array is not None:
                    raise Refusal("it fills an array twice")
                self._array = kind.array(raw, shape, "F" if fortran else "C")
            case _:
                raise Refusal("it fills an array with an invalid state")

    def finished(self) -> NDArray[np.generic]:
        """The array; it may be read-only."""
        if self._array is None:
            raise Refusal("it holds an array that is never filled")
        return self._array


class ElementType:
    """A number or text type; replaces `numpy.dtype`."""

    __slots__ = ("_order", "_spec")

    def __init__(self, spec: object, *_: object) -> None:
        if not isinstance(spec, str) or not re.fullmatch(
            r"(b1|[iu][1248]|[fc]\d{1,2}|[SU][1-9]\d{0,5})", spec
        ):
            raise Refusal(f"it holds an array of type {str(spec)[:40]!r}, which is neither numbers nor text")
        self._spec = spec
        self._order: Literal["<", ">", "="] = "="

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), "<", None, None, None, *_):
                self._order = "<"
            case (int(), ">", None, None, None, *_):
                self._order = ">"
            case (int(), "=" | "|", None, None, None, *_):
                self._order = "="
            case _:
                raise Refusal("it holds an array with fields")

    def array(self, raw: object, shape: object, order: str) -> NDArray[np.generic]:
        """The array of these bytes; their number must match shape and type."""
        if isinstance(raw, list):
            raise Refusal("it holds an array of Python objects")
        if not isinstance(raw, bytes | bytearray) or not _sizes(shape) or order not in ("C", "F"):
            raise Refusal("it fills an array with an invalid state")
        dtype = np.dtype(self._spec).newbyteorder(self._order)
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise Refusal(f"it has {len(raw)} bytes for an array {shape} of {dtype}")
        if not raw:
            return np.zeros(shape, dtype)
        array: NDArray[np.generic] = np.frombuffer(raw, dtype).reshape(
            shape, order="F" if order == "F" else "C"
        )
        return array


def _sizes(shape: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)


class _Storage:
    """The numbers that one or more tensors share."""

    __slots__ = ("flat",)

    def __init__(self, flat: torch.Tensor) -> None:
        self.flat = flat

    def __setstate__(self, state: object) -> None:
        raise Refusal("it changes a tensor's storage")


class _Call:
    """A function that a pickle may call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        budget = _budget.get()
        if budget is not None:
            budget.charge(sum(len(arg) for arg in args if isinstance(arg, bytes | str)))
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise Refusal("it changes a function")


def _no_call(*_: object) -> object:
    raise Refusal("it makes an array without giving its bytes")


_NDARRAY: Final = _Call(_no_call)  # named by `_reconstruct`'s arguments, never called


def _reconstruct(kind: object, *_: object) -> Held:
    if kind is not _NDARRAY:
        raise Refusal("it makes an array of another class than numpy.ndarray")
    return Held()


def _from_buffer(raw: object, kind: object, shape: object, order: object) -> Held:
    if not isinstance(kind, ElementType) or not isinstance(order, str):
        raise Refusal("it fills an array with an invalid state")
    return Held(kind.array(raw, shape, order))


def _scalar(kind: object, raw: object) -> object:
    if not isinstance(kind, ElementType):
        raise Refusal("it makes a number of an invalid type")
    return kind.array(raw, (), "C").item()


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refusal("it encodes something other than bytes as Latin-1")
    return text.encode("latin1")  # how bytes are written in pickles of protocols 0 to 2


def _no_bytes(*args: object) -> bytes:
    if args:
        raise Refusal("it makes bytes out of something else")
    return b""  # how these protocols write empty bytes


def _ordered(*pairs: object) -> dict[object, object]:
    match pairs:
        case ():
            return {}
        case (list() as items,):
            if not all(isinstance(item, tuple) and len(item) == 2 and _is_key(item[0]) for item in items):
                raise Refusal(
                    "it makes an ordered dict of something other than pairs with text or integers as keys"
                )
            return dict(items)
        case _:
            raise Refusal("it makes an ordered dict of something other than a list")


def _is_key(key: object) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and key.bit_length() <= KEY_BITS)


def _storage(raw: object) -> _Storage:
    if not isinstance(raw, bytes):
        raise Refusal("it makes a tensor's storage of something other than bytes")
    storage = load_torch(raw)
    if not isinstance(storage, torch.storage.TypedStorage) or storage.dtype not in _TENSOR_TYPES:
        raise Refusal("it makes a tensor's storage of something else")
    # The public `untyped()` warns that typed storages are deprecated; files of torch.save still have them.
    return _Storage(torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage))


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> Held:
    start = (offset,)
    if not isinstance(storage, _Storage) or not _sizes(start) or not _sizes(size) or not _sizes(stride):
        raise Refusal("it makes a tensor of something other than a storage")
    count = math.prod(size)
    if count > storage.flat.numel():  # an expanded tensor: more numbers than were saved
        raise Refusal(f"it makes a tensor {size} of {storage.flat.numel()} numbers")
    if (budget := _budget.get()) is not None:
        budget.charge(count * storage.flat.element_size())
    view = torch.as_strided(storage.flat, size, stride, start[0])  # raises if it reaches past the storage
    return Held(_numpy(view))


_TENSOR_TYPES: Final = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
)
_NAMES: Final[Mapping[tuple[str, str], _Call]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(ElementType),
    ("numpy.core.multiarray", "_reconstruct"): _Call(_reconstruct),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_from_buffer),
    ("_codecs", "encode"): _Call(_encode),
    ("__builtin__", "bytes"): _Call(_no_bytes),
    ("builtins", "bytes"): _Call(_no_bytes),
    ("collections", "OrderedDict"): _Call(_ordered),
    ("torch.storage", "_load_from_bytes"): _Call(_storage),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
}


def read_pickle(path: Path, max_bytes: int = MAX_BYTES) -> Plain:
    """The content of a `.pkl` or `.pt` file: arrays and plain values, and lists, tuples and dicts of them.

    Arrays may be read-only. Tensors become arrays; bfloat16 becomes float32.

    Args:
        path: a pickle, or a file of `torch.save`.
        max_bytes: the largest allowed size of the file, and of each tensor in it.

    Raises:
        DataError: the file is too large, damaged, or holds anything else.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(f"{path} has {size} bytes, the limit is {max_bytes}; {_REMEDY}")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the file") from error
    return unpickle(data, str(path), max_bytes)


def unpickle(data: bytes, name: str, max_bytes: int = MAX_BYTES) -> Plain:
    """Like `read_pickle`, from bytes; `name` is the file's name in errors."""
    try:
        with budgeted(len(data)) as budget:
            if data.startswith((ZIP, _TORCH)):
                return _plain(_from_torch(data, max_bytes), max_bytes, budget, {}, 0)
            scan(data)
            return _plain(_Restricted(io.BytesIO(data)).load(), max_bytes, budget, {}, 0)
    except Refusal as refusal:
        raise DataError(f"{name} is refused: {refusal}; {_REMEDY}") from refusal
    except _NONSENSE as error:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):  # torch.load's message, after its advice
            raise DataError(f"{name} is refused: it asks for {asked[1]}; {_REMEDY}") from error
        cause = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
        first = cause.partition("\n")[0]
        raise DataError(f"{name} is not a readable pickle: {first}; fetch or make it again") from error


class _Restricted(Unpickler):
    """An unpickler that knows only the names of `stand_in`."""

    def find_class(self, module: str, name: str) -> object:
        """The replacement for a name; names without one are refused."""
        return stand_in(module, name)


def _from_torch(data: bytes, max_bytes: int) -> object:
    if data.startswith(ZIP):
        with ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > max_bytes:
            raise Refusal(f"it unpacks to {size} bytes, the limit is {max_bytes}")
    return load_torch(data)


def _plain(value: object, max_bytes: int, budget: Budget, done: dict[int, Plain], depth: int) -> Plain:
    """A copy of what was loaded, with arrays in place of replacements and tensors."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in done:  # a list that is in another one a million times is copied once
        return done[id(value)]
    if depth > DEPTH:
        raise Refusal(f"it nests deeper than {DEPTH} lists")
    result: Plain
    match value:
        case Held():
            result = value.finished()
        case torch.Tensor():
            result = _array(value, max_bytes, budget)
        case list():
            result = [_plain(item, max_bytes, budget, done, depth + 1) for item in value]
        case tuple():
            result = tuple(_plain(item, max_bytes, budget, done, depth + 1) for item in value)
        case dict():
            result = {
                _key(key): _plain(item, max_bytes, budget, done, depth + 1) for key, item in value.items()
            }
        case _:
            raise Refusal(f"it holds a {type(value).__name__}")
    done[id(value)] = result
    return result


def _key(key: object) -> str | int:
    if not isinstance(key, str | int):
        raise Refusal(f"it has a {type(key).__name__} as a key")
    return key


def _array(tensor: torch.Tensor, max_bytes: int, budget: Budget) -> NDArray[np.generic]:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise Refusal(f"it holds a tensor that is not plain numbers ({tensor.layout}, {tensor.dtype})")
    size = tensor.numel() * tensor.element_size()  # an expanded tensor is larger than its file
    if size > max_bytes:
        raise Refusal(f"it holds a tensor of {size} bytes, the limit is {max_bytes}")
    budget.charge(size)
    return _numpy(tensor.detach())


def _numpy(tensor: torch.Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = (
        (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
    )
    return array
