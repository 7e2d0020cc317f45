"""Stand-ins for the names that pickled arrays and tensors ask for; each checks what it is given.

None of numpy's or torch's own functions is handed to a pickle: with made-up arguments some allocate without
limit or show memory that nobody wrote. Nor can a pickle change what it gets, except that an array is filled
once.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, TypeGuard
from zipfile import ZipFile

import numpy as np
import torch

from emi_models.data.pickle_scan import KEY_BITS, TORCH_PICKLES, Refusal, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["ZIP", "Budget", "Held", "budgeted", "load_torch", "stand_in"]

ZIP: Final = b"PK\x03\x04"


class Budget:
    """How many bytes the stand-ins may still process for one file. Bytes that are read twice count twice."""

    def __init__(self, size: int) -> None:
        self.left = BUDGET_TIMES * size + BUDGET_FREE

    def charge(self, size: int) -> None:
        """Take `size` bytes off; raises Refusal when there are none left."""
        self.left -= size
        if self.left < 0:
            raise Refusal("it makes far more of its bytes than a file of arrays does")


BUDGET_TIMES: Final = 4  # a byte may be text first, then an array, then a tensor
BUDGET_FREE: Final = 64 << 20  # bytes: small files may share one storage among many tensors
_budget: ContextVar[Budget | None] = ContextVar("_budget", default=None)


@contextmanager
def budgeted(size: int) -> Iterator[Budget]:
    """Within it, whatever stand-ins do counts against the budget of a file of this size."""
    budget = Budget(size)
    token = _budget.set(budget)
    try:
        yield budget
    finally:
        _budget.reset(token)


def stand_in(module: str, name: str) -> object:
    """What a pickle gets for `module.name`.

    Raises:
        Refusal: arrays and tensors do not need that name.
    """
    # numpy 2 moved its core; pickles of both have the old or the new name.
    found = _NAMES.get((module.replace("numpy._core.", "numpy.core."), name))
    if found is None:
        raise Refusal(f"it asks for {module}.{name}")
    return found


def load_torch(data: bytes) -> object:
    """What `torch.save` wrote, by PyTorch's own restricted unpickler, on the CPU.

    Its warnings are about odd files, which are refused soon after, or are of no use to whoever has them.
    """
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
    """An array in the making: a pickle fills it once, and can do nothing else with it."""

    __slots__ = ("_array",)

    def __init__(self, array: NDArray[np.generic] | None = None) -> None:
        self._array = array

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, Kind() as kind, bool() | int() as fortran, raw):
                if self._array is not None:
                    raise Refusal("it fills an array twice")
                self._array = kind.array(raw, shape, "F" if fortran else "C")
            case _:
                raise Refusal("it fills an array with what is no array's state")

    def finished(self) -> NDArray[np.generic]:
        """The array; it may be read-only."""
        if self._array is None:
            raise Refusal("it holds an array that is never filled")
        return self._array


class Kind:
    """A number or text type: what `numpy.dtype` would be."""

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
        """The array of these bytes; they must be as many as shape and type say."""
        if isinstance(raw, list):
            raise Refusal("it holds an array of Python objects")
        if not isinstance(raw, bytes | bytearray) or not _sizes(shape) or order not in ("C", "F"):
            raise Refusal("it fills an array with what is no array's state")
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
    """A function that a pickle may call, but not change."""

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
    if not isinstance(kind, Kind) or not isinstance(order, str):
        raise Refusal("it fills an array with what is no array's state")
    return Held(kind.array(raw, shape, order))


def _scalar(kind: object, raw: object) -> object:
    if not isinstance(kind, Kind):
        raise Refusal("it makes a number of no number type")
    return kind.array(raw, (), "C").item()


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refusal("it encodes other than bytes as Latin-1")
    return text.encode("latin1")  # how bytes are written in pickles of protocols 0 to 2


def _no_bytes(*args: object) -> bytes:
    if args:
        raise Refusal("it makes bytes out of something else")
    return b""  # how these same protocols write it


def _ordered(*pairs: object) -> dict[object, object]:
    match pairs:
        case ():
            return {}
        case (list() as items,):
            if not all(isinstance(item, tuple) and len(item) == 2 and _is_key(item[0]) for item in items):
                raise Refusal(
                    "it makes an ordered dict of no pairs, or of keys that are neither text nor integers"
                )
            return dict(items)
        case _:
            raise Refusal("it makes an ordered dict of no list")


def _is_key(key: object) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and key.bit_length() <= KEY_BITS)


def _storage(raw: object) -> _Storage:
    if not isinstance(raw, bytes):
        raise Refusal("it makes a tensor's storage of no bytes")
    storage = load_torch(raw)
    if not isinstance(storage, torch.storage.TypedStorage) or storage.dtype not in _TENSOR_TYPES:
        raise Refusal("it makes a tensor's storage of something else")
    # The public `untyped()` warns that typed storages go away; what torch.save wrote still holds them.
    return _Storage(torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage))


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> Held:
    start = (offset,)
    if not isinstance(storage, _Storage) or not _sizes(start) or not _sizes(size) or not _sizes(stride):
        raise Refusal("it makes a tensor of no storage")
    count = math.prod(size)
    if count > storage.flat.numel():  # an expanded tensor: more numbers than were saved
        raise Refusal(f"it makes a tensor {size} of {storage.flat.numel()} numbers")
    if (budget := _budget.get()) is not None:
        budget.charge(count * storage.flat.element_size())
    view = torch.as_strided(storage.flat, size, stride, start[0])  # raises if it reaches past the storage
    array: NDArray[np.generic] = (view.float() if view.dtype == torch.bfloat16 else view).contiguous().numpy()
    return Held(array)


_TENSOR_TYPES: Final = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
)
_NAMES: Final[Mapping[tuple[str, str], _Call]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(Kind),
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
