"""Which model a folder holds that a setting names: the published one by its sizes, else one with its own id.

Checkpoints name their encoders by id, so a model of other sizes must not have the published model's id: its
id is made of architecture, width, layers and the sha256 of its weights, e.g. `vit-32x2@1f3a5c7e9b02`. So is
that of a model of the published sizes that `emi train --train-encoders` has trained.
Training and live use find the same id.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from emi_models.encoders.pretrained import WEIGHTS, ModelSpec, read_json, require
from emi_models.encoders.text import (
    GTE_BASE,
    GTE_EN_MLM_BASE,
    TEXT_CLASSES,
)
from emi_models.encoders.vit import VIT_BASE
from emi_models.encoders.wav2vec import (
    AFFECT,
    AUDEERING,
    CLASSES,
    HUBERT_LARGE,
    WAVLM_LARGE,
    SpeechSpec,
)
from emi_models.errors import ModelIntegrityError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["TUNED", "identify_face", "identify_speech", "identify_text"]

HASH_DIGITS: Final = 12
TUNED: Final = "emi_tuned_from"  # in config.json, of an encoder that `emi train` has trained: what it was
AFFECT_PROJECTION: Final = "classifier.out_proj.weight"

Spec = TypeVar("Spec", bound=ModelSpec)


def identify_face(folder: Path, published: ModelSpec = VIT_BASE) -> ModelSpec:
    """The vision transformer in the folder.

    Raises:
        ModelUnavailableError: a file is not in the folder.
        ModelIntegrityError: it holds a model of another kind, or a damaged one.
    """
    return _identify(folder, published, {published.model_type})


def identify_text(folder: Path, published: ModelSpec = GTE_BASE) -> ModelSpec:
    """The text model in the folder; raises as `identify_face` does."""
    kinds = {*TEXT_CLASSES, GTE_EN_MLM_BASE.model_type}
    found = _identify(folder, published, kinds)
    known = _sizes_of(found) == _sizes_of(GTE_EN_MLM_BASE) and not _is_tuned(folder, published)
    return GTE_EN_MLM_BASE if known else found


def identify_speech(folder: Path, published: SpeechSpec = AUDEERING) -> SpeechSpec:
    """The speech model in the folder, with or without a head for affect; raises as `identify_face` does."""
    found = _identify(folder, published, CLASSES)
    affect = _has_affect_head(folder, found.hidden_size)
    if affect == found.affect:
        return found
    for known in (HUBERT_LARGE, WAVLM_LARGE):
        if not affect and _sizes_of(found) == _sizes_of(known) and not _is_tuned(folder, published):
            return known
    return replace(_derived(folder, found), affect=affect)


def _identify(folder: Path, published: Spec, kinds: Collection[str]) -> Spec:
    require(folder, published, "config.json", WEIGHTS)
    config = read_json(folder / "config.json", published)
    kind: Any = config.get("model_type")
    width: Any = config.get("hidden_size")
    layers: Any = config.get("num_hidden_layers")
    if kind not in kinds or not (_is_size(width) and _is_size(layers)):
        raise ModelIntegrityError(
            f"{folder} holds a model of type {kind}, width {width} and {layers} layers; what can run here is "
            f"{' or '.join(sorted(kinds))}: {published.remedy}"
        )
    found = replace(published, model_type=kind, hidden_size=width, layers=layers)
    return published if found == published and TUNED not in config else _derived(folder, found)


def _is_tuned(folder: Path, spec: ModelSpec) -> bool:
    return TUNED in read_json(folder / "config.json", spec)


def _has_affect_head(folder: Path, width: int) -> bool:
    """Whether the weights hold a projection of the states' width to as many values as affect has."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="np") as stored:
            if AFFECT_PROJECTION not in stored.keys():  # noqa: SIM118  # no mapping
                return False
            return tuple(stored.get_slice(AFFECT_PROJECTION).get_shape()) == (len(AFFECT), width)
    except (OSError, SafetensorError) as error:
        raise ModelIntegrityError(f"{folder / WEIGHTS} cannot be read ({error}): copy it again") from error


def _derived(folder: Path, spec: Spec) -> Spec:
    """The same model with its own id."""
    with (folder / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]
    name = f"{spec.model_type}-{spec.hidden_size}x{spec.layers}@{digest}"
    return replace(spec, encoder_id=name, store_name="")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _sizes_of(spec: ModelSpec) -> tuple[str, int, int]:
    return spec.model_type, spec.hidden_size, spec.layers
