"""Where the ONNX of a checkpoint is, and the proof that it is this checkpoint's. No PyTorch, no `onnx`.

An export lies next to its checkpoint or in the user's cache. It says in its metadata which file it was made
from (`HASH_KEY`) and what PyTorch answered to two random windows (`ANSWERS_KEY`). So a program that only runs
a network needs ONNX Runtime alone, and still refuses one that is stale, foreign or computed wrongly here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_engine.protocol import TOLERANCES, EngineError
from emi_models import MODALITIES
from emi_models.files import user_cache
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_engine.onnxruntime_engine import OnnxRuntimeEngine
    from emi_engine.protocol import Precision
    from emi_models.inputs import FusionShapes

__all__ = [
    "ANSWERS_KEY",
    "HASH_KEY",
    "PROBE_WINDOWS",
    "cache_place",
    "find_model",
    "metadata",
    "probe_arrays",
    "prove_answers",
    "worst_difference",
]

OPSET: Final = 18  # its LayerNormalization is one fused kernel; 23's Attention does not take a mask per key
MAX_MODEL: Final = 2 << 30  # bytes: protobuf has no larger messages
HASH_KEY: Final = "emi_checkpoint_sha256"
ANSWERS_KEY: Final = "emi_probe_answers"  # JSON: PROBE_WINDOWS rows of intensities, of `probe_arrays`
PROBE_WINDOWS: Final = 2

_METADATA_FIELD: Final = 14  # of ModelProto: metadata_props, each with a key (1) and a value (2)
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # protobuf's wire types

_log = logging.getLogger(__name__)


def find_model(
    content_hash: str,
    beside: Path,
    cache: Path | None = None,
    *,
    precision: Precision = "fp32",
    batch: int | None = None,
) -> bytes | None:
    """The export of a checkpoint from the first place that has it; None: none of them.

    Looks at the `.onnx` file next to `beside`, the checkpoint's own file, which is in fp32 and for any batch,
    then into the cache (default: the user's). A file of another checkpoint is not used, and a line in the log
    says so.
    """
    kept = cache_place(content_hash, cache, precision, batch)
    places = (beside.with_suffix(".onnx"), kept) if (precision, batch) == ("fp32", None) else (kept,)
    for place in places:
        try:
            if not place.is_file() or place.stat().st_size > MAX_MODEL:
                continue
            model = place.read_bytes()
        except OSError:
            continue  # not there
        said = metadata(model)
        if said.get(HASH_KEY) != content_hash:
            _log.warning("%s does not belong to the checkpoint in use; it is not used", place)
        elif ANSWERS_KEY not in said:
            _log.warning("%s was exported by an earlier emi-live; it is not used", place)
        else:
            return model
    return None


def cache_place(content_hash: str, cache: Path | None, precision: Precision, batch: int | None) -> Path:
    """Where an export of this checkpoint by this version's networks is kept."""
    modules = sorted(files("emi_models.networks").iterdir(), key=lambda module: module.name)
    sources = [module.read_text(encoding="utf-8") for module in modules if module.name.endswith(".py")]
    maker = hashlib.sha256("/".join([*sources, str(OPSET), ANSWERS_KEY]).encode()).hexdigest()
    kind = "" if (precision, batch) == ("fp32", None) else f"-{precision}-batch{batch or ''}"
    return (cache or user_cache(os.environ) / "onnx") / f"{content_hash[:32]}-{maker[:16]}{kind}.onnx"


def prove_answers(engine: OnnxRuntimeEngine, model: bytes) -> None:
    """Return if the engine answers the random windows as PyTorch did when `model` was exported, in fp32.

    Raises:
        EngineError: it does not, or the model does not hold the answers.
    """
    try:
        expected = np.array(json.loads(metadata(model)[ANSWERS_KEY]), np.float32)
    except (KeyError, TypeError, ValueError):
        expected = np.empty(0, np.float32)
    if expected.shape != (PROBE_WINDOWS, len(engine.header.targets)):
        raise EngineError(
            "the .onnx file next to the checkpoint does not hold the answers that prove it: it is stale; "
            "remove it, and export it again"
        )
    worst = worst_difference(engine.run_arrays(probe_arrays(engine.shapes, PROBE_WINDOWS)), expected)
    if not worst <= TOLERANCES["fp32"]:
        raise EngineError(
            f"{engine.name} differs from the checkpoint's network by {worst:.2g}: what it runs is stale; "
            "remove the .onnx file next to the checkpoint, or choose the engine `torch`"
        )


def metadata(model: bytes) -> dict[str, str]:
    """The metadata of an ONNX file; empty if it is damaged or has none.

    Read from the wire format (https://protobuf.dev/programming-guides/encoding), field by field, since
    ONNX Runtime gives it only once it has built the whole session, and `onnx` is not needed to run anything.
    """
    found: dict[str, str] = {}
    try:
        for number, entry in _fields(model):
            if number == _METADATA_FIELD:
                pair = dict(_fields(entry))
                found[pair[1].decode()] = pair[2].decode()
    except (IndexError, KeyError, ValueError):
        return {}
    return found


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The fields of a message that have a length: number and content; raises IndexError or ValueError."""
    found, at = [], 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        elif kind == _LENGTH:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("cut off")
            found.append((number, message[at : at + size]))
            at += size
        else:
            raise ValueError(f"wire type {kind}")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def probe_arrays(shapes: FusionShapes, batch: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Random windows with gaps in their masks and modalities missing, by the names of `FusionInputs`.

    The same for the same seed with every release of numpy: `RandomState` is frozen (NEP 19), and exports keep
    a network's answers to them.
    """
    chance = np.random.RandomState(seed)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in MODALITIES:
        size = [batch, getattr(shapes, f"{name}_dim")]
        if name != "text":
            size.insert(1, getattr(shapes, f"{name}_frames"))
            arrays[f"{name}_mask"] = chance.random_sample(size[:2]) < chance.random_sample((batch, 1))
        arrays[name] = chance.standard_normal(size).astype(np.float32)
        arrays[f"{name}_present"] = chance.random_sample(batch) < 0.75
    return {name: arrays[name] for name in FusionInputs.names()}


def worst_difference(intensities: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of an intensity from what is expected, in units of the largest or of 1."""
    return float(np.abs(intensities - expected).max() / max(1.0, np.abs(expected).max()))
