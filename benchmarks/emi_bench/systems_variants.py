"""What is compared: the four systems, TAEMI less one of its parts at a time, and references for what is lost.

Networks are small because the corpus' features are: widths, and what `TRAINING` names, are ours; all else is
as the papers have it (each system's defaults and recipe). Every variant has the same training settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TRAINING", "VARIANTS", "Variant", "variant"]

Kind = Literal["system", "ablation", "reference"]

# At most so many epochs a stage, and so many without a better one; the same for all stages of all systems.
TRAINING: Final[Mapping[str, int | float]] = {
    "max_epochs": 12,
    "patience": 5,
    "batch_size": 32,
    "learning_rate": 1e-3,
}
_TAEMI: Final = {"d_model": 32, "heads": 4, "mlp_hidden": 64}
_TWO_STAGE: Final = {"hidden": 64, "fusion_hidden": 64}
_DUAL_STAGE: Final = {"shared": 32, "d_model": 32}
_SEMANTIC_MATTERS: Final = {"audio_hidden": 32, "vision_hidden": 32, "fusion_hidden": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One row of the comparison: a system and its network's settings."""

    name: str  # of files
    label: str  # of rows and bars
    kind: Kind
    system: str
    network: Mapping[str, object]


def _taemi(name: str, label: str, kind: Kind = "ablation", **network: object) -> Variant:
    return Variant(name=name, label=label, kind=kind, system="taemi", network=_TAEMI | network)


VARIANTS: Final[tuple[Variant, ...]] = (
    _taemi("taemi", "TAEMI: text anchor, tokens, dropout", "system"),
    Variant(name="two_stage", label="two-stage", kind="system", system="two_stage", network=_TWO_STAGE),
    Variant(name="dual_stage", label="dual-stage", kind="system", system="dual_stage", network=_DUAL_STAGE),
    Variant(
        name="semantic_matters",
        label="Semantic Matters",
        kind="system",
        system="semantic_matters",
        network=_SEMANTIC_MATTERS,
    ),
    Variant(
        name="semantic_multitask",
        label="Semantic Matters, multi-task",
        kind="system",
        system="semantic_matters",
        network=_SEMANTIC_MATTERS | {"fusion": "multitask"},
    ),
    _taemi("anchor_audio", "TAEMI, audio anchor", anchor="audio"),
    _taemi("anchor_vision", "TAEMI, vision anchor", anchor="vision"),
    _taemi("self_attention", "TAEMI, self-attention only", attention="self"),
    _taemi("concatenation", "TAEMI, plain concatenation", attention="none"),
    _taemi("no_tokens", "TAEMI, zeros for tokens", missing="zero"),
    _taemi("no_dropout", "TAEMI, no modality dropout", modality_dropout=0.0),
    _taemi("neither", "TAEMI, neither", missing="zero", modality_dropout=0.0),
    _taemi("never_text", "TAEMI, trained without text", "reference", modalities=("vision", "audio")),
    _taemi("never_audio", "TAEMI, trained without audio", "reference", modalities=("vision", "text")),
    _taemi("never_vision", "TAEMI, trained without vision", "reference", modalities=("audio", "text")),
)


def variant(name: str) -> Variant:
    """The variant of that name, which must exist."""
    return next(variant for variant in VARIANTS if variant.name == name)
