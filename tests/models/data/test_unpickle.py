from __future__ import annotations

import collections
import functools
import io
import operator
import os
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from emi_models.data.unpickle import read_pickle, scan, unpickle
from emi_models.errors import DataError
from tests.models.data.pickles import Calls, dumped, write_pickle

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOLS = range(6)
NUMBERS = st.one_of(
    st_numpy.boolean_dtypes(),
    st_numpy.integer_dtypes(endianness="?"),
    st_numpy.unsigned_integer_dtypes(endianness="?"),
    st_numpy.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    st_numpy.unicode_string_dtypes(max_len=4),
)
ARRAYS = NUMBERS.flatmap(
    lambda dtype: st_numpy.arrays(
        dtype, st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    )
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(-(2**63), 2**63), inner, max_size=3)
    ),
    max_leaves=6,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(deadline=None, max_examples=40)
@given(value=PLAIN)
def test_arrays_and_plain_values_come_out_as_they_went_in(protocol: int, value: object) -> None:
    assert same(unpickle(dumped(value, protocol), "x.pkl"), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 768), np.float32),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10.0)[::2],
        np.arange(4, dtype=">i4"),
    ],
    ids=["empty", "fortran", "strided", "big-endian"],
)
def test_layouts_of_memory_do_not_matter(protocol: int, array: np.ndarray) -> None:
    found = unpickle(dumped(array, protocol), "x.pkl")
    assert isinstance(found, np.ndarray)
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_numpys_scalars_become_pythons() -> None:
    found = unpickle(dumped([np.float32(0.5), np.int64(3), np.bool_(True), np.str_("a")]), "x.pkl")
    assert same(found, [0.5, 3, True, "a"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("old", "new"), [(b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")])
def test_both_names_of_numpys_core_are_known(protocol: int, old: bytes, new: bytes) -> None:
    value = {"a": np.arange(3.0), "b": np.float64(1)}
    data = dumped(value, protocol)
    if protocol < 4:  # names end with a line break; later protocols write their length too
        data = data.replace(old, new)
    else:
        for name in (b".multiarray", b".numeric"):
            before, after = old + name, new + name
            data = data.replace(bytes([len(before)]) + before, bytes([len(after)]) + after)
        size = data.index(b"\x95") + 1
        data = data[:size] + (len(data) - size - 8).to_bytes(8, "little") + data[size + 8 :]
    found = unpickle(data, "x.pkl")
    assert isinstance(found, dict)
    assert same(found["a"], np.arange(3.0))


def saved(value: object, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


WAYS: dict[str, Callable[[object], bytes]] = {
    "bare": dumped,
    "zip": functools.partial(saved, zipped=True),
    "legacy": functools.partial(saved, zipped=False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4),
        torch.arange(12.0).reshape(3, 4).T[1:],
        torch.arange(5, dtype=torch.int64),
        torch.zeros(0, 768),
        torch.ones(2, 2, dtype=torch.float16, requires_grad=True),
        torch.tensor(3.0),
    ],
    ids=["plain", "transposed", "integers", "empty", "grad", "scalar"],
)
def test_tensors_become_arrays(way: str, tensor: torch.Tensor) -> None:
    found = unpickle(WAYS[way]({"x": [tensor]}), "x.pt")
    assert isinstance(found, dict)
    assert isinstance(found["x"], list)
    assert same(found["x"][0], np.ascontiguousarray(tensor.detach().numpy()).reshape(tensor.shape))


@pytest.mark.parametrize("way", WAYS)
def test_bfloat16_becomes_float32(way: str) -> None:
    found = unpickle(WAYS[way](torch.tensor([1.5, -2.0], dtype=torch.bfloat16)), "x.pt")
    assert same(found, np.array([1.5, -2.0], np.float32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("true",), "posix.system"),
        (eval, ("1",), ".eval"),
        (exec, ("1",), ".exec"),
        (getattr, (np, "load"), ".getattr"),
        (__import__, ("os",), ".__import__"),
        (open, ("/dev/null",), "io.open"),
        (bytearray, (1 << 40,), ".bytearray"),
        (operator.attrgetter("x"), (), "operator.attrgetter"),
        (functools.partial, (print,), "functools.partial"),
        (np.load, ("x.npy",), "numpy.load"),
        (np.zeros, (1 << 40,), "numpy.zeros"),
        (torch.load, ("x.pt",), "torch.serialization.load"),
        (collections.deque, ([],), "collections.deque"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_any_other_name_is_refused_with_that_name(
    protocol: int, function: object, args: tuple[object, ...], name: str
) -> None:
    # a module in the arguments cannot be pickled: its name will do, since nothing is called
    args = tuple("numpy" if arg is np else arg for arg in args)
    with pytest.raises(DataError, match=r"x\.pkl is refused") as caught:
        unpickle(dumped(Calls(function, *args), protocol), "x.pkl")
    assert f"{name};" in str(caught.value)


def test_nothing_was_called(tmp_path: Path) -> None:
    mark = tmp_path / "called"
    for data in (dumped(Calls(os.mkdir, str(mark))), saved(Calls(os.mkdir, str(mark)), zipped=True)):
        with pytest.raises(DataError, match=r"(posix|os)\.mkdir"):
            unpickle(data, "x.pkl")
    with pytest.raises(DataError, match=r"(posix|os)\.mkdir"):
        unpickle(saved(Calls(os.mkdir, str(mark)), zipped=False), "x.pkl")
    assert not mark.exists()


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "ndarray.__class__"),
        ("numpy", "ndarray.__reduce__.__globals__"),
        ("numpy", "dtype.mro"),
        ("numpy", "_core.multiarray._reconstruct"),
        ("numpy._core", "multiarray._reconstruct"),
        ("collections", "OrderedDict.__init__"),
        ("emi_models.data.unpickle", "Held"),
        ("builtins", "object"),
    ],
)
def test_a_way_through_attributes_is_refused(module: str, name: str) -> None:
    data = b"\x80\x04" + text(module) + text(name) + b"\x93."
    with pytest.raises(DataError, match="asks for") as caught:
        unpickle(data, "x.pkl")
    assert f"{module}.{name};" in str(caught.value)


NDARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
SHELL = RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntC\x01btR"
FLOATS = b"cnumpy\ndtype\n(V\x66\x34\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (dumped(np.array([{"a": 1}], dtype=object)), "type 'O8'"),
        (dumped(np.array([None, 1], dtype=object), 2), "type 'O8'"),
        (dumped(np.zeros(2, [("a", "f4")])), "type 'V4'"),
        (dumped(np.array(["2020-01-01"], "M8[D]")), "type 'M8'"),
        (dumped(np.dtype("f4")), "it holds a ElementType"),
        (dumped({1, 2}), "a set"),
        (dumped(b"bytes"), "it holds a bytes"),
        (dumped(1j), "it asks for"),
        (dumped({(1, 2): 1}), "key"),
        (dumped({np.float32(0.5): 1}), "key"),
        (dumped([[[[[[[[[[1]]]]]]]]]]), "deeper"),
        (NDARRAY + b".", "it holds a _Call"),
        (NDARRAY + b"((I1000000000000\ntVf4\ntR.", "without"),
        (NDARRAY + b"}b.", "it changes a function"),
        (RECONSTRUCT + b"}V__defaults__\n)sb.", "it changes a function"),
        (SHELL + b".", "never filled"),
        (SHELL + b"(I1\n(I2\nt" + FLOATS + b"I00\nC\x04\0\0\0\0tb.", "4 bytes"),
        (SHELL + b"(I1\n(I-1\nt" + FLOATS + b"I00\nC\x04\0\0\0\0tb.", "invalid state"),
        (SHELL + b"(I1\n(I1\nt" + FLOATS + b"I00\n(Nltb.", "Python objects"),
        (SHELL + 2 * (b"(I1\n(I1\nt" + FLOATS + b"I00\nC\x04\0\0\0\0tb") + b".", "twice"),
        (SHELL + b"}b.", "invalid state"),
        (FLOATS[:-1] + b"0}b.", "fields"),
        (RECONSTRUCT + b"(" + FLOATS + b"(I0\ntC\x01btR.", "another class"),
        (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "encodes"),
        (b"ccollections\nOrderedDict\n(I1\ntR.", "ordered dict"),
        (b"ctorch.storage\n_load_from_bytes\n(I1\ntR.", "storage"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\nttR.", "readable pickle"),
        (b"(lq\x00h\x00a.", "deeper"),  # a list that holds itself
        (b"Nr\xff\xff\xff\x7f.", "2147483647"),
    ],
)  # fmt: skip
def test_what_is_no_array_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(DataError) as caught:
        unpickle(data, "x.pkl")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (2, (4,), (1,)),
        (0, (2,), (9,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (5,), (0,)),
        (0, (1 << 40,), (0,)),
    ],
)
def test_a_tensor_has_no_numbers_but_its_own(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    rebuild, args = torch.zeros(4).__reduce_ex__(2)
    data = dumped(Calls(rebuild, args[0], offset, size, stride, False, collections.OrderedDict()))
    with pytest.raises(DataError, match=r"x\.pkl is"):
        unpickle(data, "x.pkl")


def test_a_tensor_of_other_than_plain_numbers_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse tensors are in beta
        sparse = saved(torch.eye(3).to_sparse(), zipped=True)
    with pytest.raises(DataError, match="not plain numbers"):
        unpickle(sparse, "x.pt")
    with pytest.raises(DataError, match="4000000000000"):
        unpickle(saved(torch.zeros(1).expand(1_000_000, 1_000_000), zipped=True), "x.pt")


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"not a pickle", b"PK\x03\x04zip?", dumped(np.zeros(9))[:-20]]
)
def test_damage_is_one_line(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^x\.pkl is not a readable pickle[^\n]+$"):
        unpickle(data, "x.pkl")


@functools.cache  # pickled once: another time it may be longer, and hypothesis wants the same data again
def whole_pickle(protocol: int) -> bytes:
    return dumped({"a": np.arange(4.0), "b": torch.ones(2), "c": [1, "x", None]}, protocol)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_pickles_raise_nothing_else(data: st.DataObject) -> None:
    whole = whole_pickle(data.draw(st.integers(0, 5)))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :]
    with suppress(DataError):
        unpickle(damaged, "x.pkl")


def doubling_key(levels: int) -> bytes:
    """A dict whose key is a tuple of two of the same tuple, and so on: its hash takes 2 ** levels steps."""
    return b"\x80\x04}(K\x01\x85" + b"2\x86" * levels + b"Nu."


def nested_lists(levels: int) -> bytes:
    return b"\x80\x04" + b"]" * levels + b"a" * (levels - 1) + b"."


def colliding(keys: int) -> bytes:
    """Integers that all have the same hash: multiples of the prime that Python's are taken modulo."""
    value: dict[object, object] = dict.fromkeys((2**61 - 1) * 2**shift for shift in range(3, 3 + keys))
    return dumped(value)


def text_over_and_over(size: int, times: int) -> bytes:
    """One text that is encoded as bytes again and again."""
    text = b"X" + size.to_bytes(4, "little") + b"a" * size + b"q\x00"
    call = b"(c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86Rt"
    return b"\x80\x02" + text + b"]" + call * times + b"."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (doubling_key(5), "key"),
        (doubling_key(100), "key"),
        (b"\x80\x04}N2\x86Ns.", "key"),
        (b"\x80\x04(K\x01\x85Nd.", "key"),
        (colliding(900), "key"),
        (dumped({2.0**61 - 1: None}), "key"),
        (dumped({1, 2}), "a set"),
        (dumped(frozenset([1])), "a set"),
        (nested_lists(1_000_000), "1000000 steps"),
        (b"\x80\x04(" + b"]" * 2_000_000 + b"l.", "1000000 steps"),
        (b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x01" * (1 << 20) + b".", "8388601 bits"),
        (dumped(2**2000), "2001 bits"),
        (dumped(Calls(collections.OrderedDict, [((1, 2), 3)])), "keys"),
        (text_over_and_over(1 << 20, 100), "far more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_take_minutes_or_gigabytes_is_refused_unread(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"^x\.pkl is refused: .*{words}"):
        unpickle(data, "x.pkl")


def test_the_pickle_within_a_file_of_torch_is_looked_at_too() -> None:
    for zipped in (True, False):
        with pytest.raises(DataError, match="key"):
            unpickle(saved({((1, 2), 3): torch.ones(1)}, zipped=zipped), "x.pt")


def test_views_of_one_storage_may_not_become_gigabytes() -> None:
    base = torch.zeros(1 << 20)
    views = [base[index:] for index in range(100)]  # 4 MB each once copied, of a file of 4 MB
    with pytest.raises(DataError, match="far more"):
        unpickle(saved(views, zipped=True), "x.pt")


def test_deep_lists_are_refused_and_steps_are_counted_alike() -> None:
    with pytest.raises(DataError, match="deeper"):
        unpickle(nested_lists(1000), "x.pkl")
    assert scan(nested_lists(1000)) == 2001
    assert scan(dumped([1.0] * 1000)) < 2100


def test_a_shared_list_is_copied_once() -> None:
    value: list[object] = [1.0]
    for _ in range(7):
        value = [value] * 1000  # 10^21 numbers, if each way to one were followed
    found = unpickle(dumped(value), "x.pkl")
    assert isinstance(found, list)
    assert len(found) == 1000


def test_files_have_a_limit(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "x.pkl", np.zeros(100))
    assert isinstance(read_pickle(path), np.ndarray)
    with pytest.raises(DataError, match="limit is 500"):
        read_pickle(path, max_bytes=500)
    with pytest.raises(DataError, match=r"none\.pkl"):
        read_pickle(tmp_path / "none.pkl")


def test_the_zip_of_torch_may_not_unpack_to_more(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(DataError, match="1048576"):
        unpickle(bomb.getvalue(), "x.pt", max_bytes=1 << 16)
