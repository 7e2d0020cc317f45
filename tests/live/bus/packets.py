"""Hypothesis strategies of every packet type, derived from its declaration: any value within its limits."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st
from msgspec import inspect
from numpy.typing import NDArray

from emi_live.messages import PACKETS, Estimate, Latency, ModalityReport, Packet, Range, VisionPacket

MAX_ITEMS = 8  # of a list, characters of a text, rows of an array: more would only be slower


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of one declared type."""
    match kind:
        case inspect.Metadata(type=inspect.UnionType(), extra=dict() as limits):
            return st.none() | arrays(limits)
        case inspect.Metadata(extra=dict() as limits):
            return arrays(limits)
        case inspect.UnionType(types=types):
            return st.one_of(*map(values, types))
        case inspect.StructType(cls=cls):
            return structs(cls)
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            assert most is not None
            return st.lists(values(item), min_size=least or 0, max_size=min(most, MAX_ITEMS)).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(values, items))
        case inspect.DictType(key_type=key, value_type=value, min_length=least, max_length=most):
            return st.dictionaries(values(key), values(value), min_size=least or 0, max_size=most)
    return scalars(kind)


def scalars(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high)
        case inspect.StrType(pattern=str() as pattern):
            return st.from_regex(pattern)
        case inspect.StrType(max_length=longest):
            assert longest is not None
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=min(longest, MAX_ITEMS))
        case inspect.BytesType(max_length=longest):
            assert longest is not None
            return st.binary(max_size=min(longest, MAX_ITEMS))
        case inspect.LiteralType(values=choices):
            return st.sampled_from(choices)
    raise AssertionError(f"a packet may not have {kind}: the wire has no limits for it")


@st.composite
def consistent(draw: st.DrawFn) -> Estimate:
    """An estimate with as many values as names, all of them within their ranges."""
    info = inspect.type_info(Estimate)
    assert isinstance(info, inspect.StructType)
    fields = {field.name: field.type for field in info.fields}
    texts = fields["names"]
    assert isinstance(texts, inspect.VarTupleType)
    names = draw(st.lists(values(texts.item_type), min_size=1, max_size=MAX_ITEMS, unique=True))
    ends = st.floats(-1e6, 1e6)
    pair = st.tuples(ends, ends).filter(lambda ends: ends[0] < ends[1])
    ranges = draw(st.just([]) | st.lists(pair, min_size=len(names), max_size=len(names)))
    limits = ranges or [(0.0, 1.0)] * len(names)
    reports = draw(values(fields["modalities"]))
    given = [
        draw(st.none() | st.tuples(*(st.floats(low - high, high - low) for low, high in limits)))
        for _ in reports
    ]
    interval = st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1))
    intervals = st.none() | st.tuples(*(interval for _ in names))
    rest = {name: draw(values(kind)) for name, kind in fields.items() if name not in CONSISTENT}
    return Estimate(
        **rest,
        names=tuple(names),
        intervals=draw(intervals),
        ranges=tuple(Range(*ends) for ends in ranges),
        intensities=tuple(draw(st.floats(low, high)) for low, high in limits),
        modalities={
            name: msgspec.structs.replace(report, contribution=contribution)
            for (name, report), contribution in zip(reports.items(), given, strict=True)
        },
    )


CONSISTENT = {
    "names",
    "ranges",
    "intensities",
    "intervals",
    "modalities",
}  # fields of an estimate that must agree


def structs(cls: type[Any]) -> st.SearchStrategy[Any]:
    if cls is Estimate:
        return consistent()
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return st.builds(cls, **{field.name: values(field.type) for field in info.fields})


def arrays(limits: dict[str, Any]) -> st.SearchStrategy[NDArray[np.float32]]:
    sizes = [st.integers(limits["least"], min(most, MAX_ITEMS)) for most in limits["shape"]]
    return st.builds(array, st.tuples(*sizes), st.integers(0, 2**32))


def array(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


estimates = structs(Estimate)
packets: st.SearchStrategy[Packet] = st.one_of(*map(structs, PACKETS))


def same(a: object, b: object) -> bool:
    """Whether two packets are equal in type and in every field, arrays bit for bit."""
    if type(a) is not type(b):
        return False
    assert isinstance(a, msgspec.Struct)
    for name in a.__struct_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes():
                return False
        elif left != right:
            return False
    return True


def vision(
    t_ns: int = 0, *, features: NDArray[np.float32] | None = None, progress_ns: int = 0
) -> VisionPacket:
    return VisionPacket(t_ns=t_ns, progress_ns=progress_ns, faces=1, features=features)


def estimate(t_s: float = 8.2, joy: float = 0.31) -> Estimate:
    return Estimate(
        t_ns=round(t_s * 1e9),
        progress_ns=round(t_s * 1e9),
        t_s=t_s,
        wall="2026-01-01T12:00:00.123Z",
        intensities=(0.12, 0.03, 0.0, 0.0, 0.2, joy),
        modalities={
            "vision": ModalityReport("live", True, 41.0, frames=246),
            "audio": ModalityReport("missing", False, 2300.0, reason="no voice", frames=410),
            "text": ModalityReport("live", False, 900.0, committed="what a day", partial="it was"),
        },
        latency=Latency(0.4, 3.1, 57.0),
        engine="onnxruntime-cpu",
        bundle="compact",
    )
