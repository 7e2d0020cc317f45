"""The one place that reads pickles: arrays, tensors and plain values come out, nothing else is ever called.

A pickle is a program. Here it finds only the few names that make up numpy arrays and torch tensors, and even
these are stand-ins that take bytes, shapes and types, check them, and do nothing else. A pickle that asks for
any other name is refused, with that name.
"""

from __future__ import annotations

import io
import re
from pickle import Unpickler, UnpicklingError  # noqa: TID251  # restricted by its find_class
from typing import TYPE_CHECKING, Final, TypeAlias
from zipfile import BadZipFile, ZipFile

import torch

from emi_models.data.errors import DataError
from emi_models.data.pickle_scan import Refusal, scan
from emi_models.data.pickled_names import ZIP, Budget, Held, budgeted, load_torch, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_BYTES", "Plain", "read_pickle", "unpickle"]

MAX_BYTES: Final = 1 << 30  # of one clip's file: 20 minutes of 1027 values at 50 Hz are a quarter of it
DEPTH: Final = 8  # lists in lists in dicts: feature files nest two or three deep

_Leaf: TypeAlias = str | int | float  # bool is an int
Plain: TypeAlias = (
    "NDArray[np.generic] | _Leaf | list[Plain] | tuple[Plain, ...] | dict[str | int, Plain] | None"
)

# What an unpickler raises on bytes that make no sense, besides its own error.
_NONSENSE: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(RuntimeError, TypeError, UnpicklingError, ValueError, BadZipFile, OSError),
)
_TORCH: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before it wrote zip files
_REMEDY: Final = "only numpy arrays, torch tensors and plain values are read; save it as .npy or .safetensors"


def read_pickle(path: Path, max_bytes: int = MAX_BYTES) -> Plain:
    """What a `.pkl` or `.pt` file holds: arrays and plain values, lists, tuples and dicts of them.

    Arrays may be read-only. Tensors become arrays; bfloat16 becomes float32.

    Args:
        path: a pickle, or a file that `torch.save` wrote.
        max_bytes: how large the file, and each tensor in it, may be.

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
    """As `read_pickle`, from bytes; `name` is what errors call them."""
    try:
        with budgeted(len(data)) as budget:
            if data.startswith((ZIP, _TORCH)):
                return _plain(_from_torch(data, max_bytes), max_bytes, budget, {}, 0)
            scan(data)
            return _plain(_Restricted(io.BytesIO(data)).load(), max_bytes, budget, {}, 0)
    except Refusal as refusal:
        raise DataError(f"{name} is refused: {refusal}; {_REMEDY}") from refusal
    except _NONSENSE as error:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):  # in torch.load's words, after its advice
            raise DataError(f"{name} is refused: it asks for {asked[1]}; {_REMEDY}") from error
        cause = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
        first = cause.partition("\n")[0]
        raise DataError(f"{name} is no readable pickle: {first}; fetch or make it again") from error


class _Restricted(Unpickler):
    """An unpickler that knows the names of `pickled_names` and no others."""

    def find_class(self, module: str, name: str) -> object:
        """The stand-in for a name; refuses all that have none."""
        return stand_in(module, name)


def _from_torch(data: bytes, max_bytes: int) -> object:
    if data.startswith(ZIP):
        with ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > max_bytes:
            raise Refusal(f"it unpacks to {size} bytes, the limit is {max_bytes}")
    return load_torch(data)


def _plain(value: object, max_bytes: int, budget: Budget, done: dict[int, Plain], depth: int) -> Plain:
    """A copy of what was loaded in which stand-ins and tensors are arrays."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in done:  # the same list a million times in a list is copied once
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
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: NDArray[np.generic] = tensor.contiguous().numpy()
    return array
