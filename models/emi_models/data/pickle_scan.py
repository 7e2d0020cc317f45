"""What a pickle would do, followed on paper before it does it: so that none takes minutes or gigabytes.

An unpickler's memory grows with the steps it takes, not with the file: an empty list is one byte there and
56 here. And it hashes whatever a pickle makes a key of: a tuple of tuples takes time that doubles with each
level, large integers can be chosen to collide. So the steps are counted, and a key must be text or a small
integer.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from typing import Final

__all__ = ["KEY_BITS", "MAX_STEPS", "TORCH_PICKLES", "Refusal", "scan"]

MAX_STEPS: Final = 1_000_000  # a clip of arrays takes some hundred; a list of 600,000 numbers is still read
MAX_BITS: Final = 1024  # of an integer that is a value
KEY_BITS: Final = 64  # of one that is a key: no two such differ in less than what their hashes tell apart
TORCH_PICKLES: Final = (
    5  # in a file of torch.save before it wrote zip files: magic, version, machine, data, names
)

_OTHER: Final = 0
_KEY: Final = 1
_MARK: Final = -1
_KEY_KINDS: Final = (
    *(pickletools.pyint, pickletools.pylong, pickletools.pyinteger_or_bool, pickletools.pybool),
    *(pickletools.pystring, pickletools.pybytes_or_str, pickletools.pyunicode),
)
_STORES: Final = ("PUT", "BINPUT", "LONG_BINPUT")
_SETS: Final = ("EMPTY_SET", "ADDITEMS", "FROZENSET")
_FETCHES: Final = ("GET", "BINGET", "LONG_BINGET")


class Refusal(Exception):  # noqa: N818  # not an error of ours to the user: it becomes one with the file's name
    """A pickle asked for what no array needs; says for what."""


def scan(data: bytes, pickles: int = 1) -> int:
    """Follow what the first pickles in `data` would do; the number of steps that they take.

    Raises:
        Refusal: it would take more than `MAX_STEPS`, make a set, an integer of more than `MAX_BITS`, or a key
            that is neither text nor an integer of `KEY_BITS`.
        ValueError, LookupError: it makes no sense.
    """
    stream, steps = io.BytesIO(data), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in names, which are no names of ours
        for _ in range(pickles):
            steps = _follow(stream, steps)
    return steps


def _follow(stream: io.BytesIO, steps: int) -> int:
    stack: list[int] = []
    memo: dict[int, int] = {}
    first = steps
    for opcode, argument, _ in pickletools.genops(stream):
        steps += 1
        if steps > MAX_STEPS:
            raise Refusal(f"it takes more than {MAX_STEPS} steps to read")
        name = opcode.name
        if name in _SETS:
            raise Refusal("it holds a set")
        if name in _STORES or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else argument
            # A place far past the others: the unpickler would allocate all in between.
            if not isinstance(place, int) or place >= steps - first:
                raise Refusal(f"it stores value {place} after {steps - first - 1} steps")
            memo[place] = stack[-1]
        elif name in _FETCHES:
            stack.append(memo[int(argument or 0)])
        else:
            _step(opcode, argument, stack)
    return steps


def _step(opcode: pickletools.OpcodeInfo, argument: object, stack: list[int]) -> None:
    """What an opcode takes from the stack, and puts there."""
    if opcode.name == "MARK":
        stack.append(_MARK)
    elif opcode.name == "DUP":
        stack.append(stack[-1])
    elif opcode.name == "POP":
        stack.pop()
    else:
        _exchange(opcode, argument, stack)


def _exchange(opcode: pickletools.OpcodeInfo, argument: object, stack: list[int]) -> None:
    if pickletools.markobject in opcode.stack_before:
        taken = _to_mark(stack)
        if opcode.name in ("SETITEMS", "DICT"):
            _check_keys(taken[::2])
        _take(stack, opcode.stack_before.index(pickletools.markobject))
    else:
        taken = _take(stack, len(opcode.stack_before))
        if opcode.name == "SETITEM":
            _check_keys(taken[1:2])
    for kind in opcode.stack_after:
        fit = kind in _KEY_KINDS
        if isinstance(argument, int) and fit:
            bits = argument.bit_length()
            if bits > MAX_BITS:
                raise Refusal(f"it holds an integer of {bits} bits")
            fit = bits <= KEY_BITS
        stack.append(_KEY if fit else _OTHER)


def _to_mark(stack: list[int]) -> list[int]:
    """Take what was put on the stack since the last mark, and the mark."""
    for place in range(len(stack) - 1, -1, -1):
        if stack[place] == _MARK:
            taken = stack[place + 1 :]
            del stack[place:]
            return taken
    raise ValueError("a mark is missing")


def _take(stack: list[int], count: int) -> list[int]:
    if count > len(stack) or _MARK in stack[len(stack) - count :]:
        raise ValueError("the stack is empty")
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _check_keys(kinds: list[int]) -> None:
    if not all(kind == _KEY for kind in kinds):
        raise Refusal(f"it has a key that is neither text nor an integer of {KEY_BITS} bits")
