"""The variants that are compared, and one training with its evaluation, whose result is kept.

Variants are the four systems, TAEMI with one of its parts changed, and references for what must be lost. The
networks are small because the corpus' features are: widths, and the settings of `TRAINING`, are ours; all
else is as in the papers (each system's defaults and recipe). Every variant has the same training settings.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import torch

from emi_bench.report_file import from_json, to_json
from emi_bench.systems.report import TrainingRun, Variant, VariantKind
from emi_live.errors import ConfigurationError
from emi_models import MODALITIES
from emi_models.checkpoint import load_checkpoint
from emi_models.data import open_clips
from emi_models.files import replacing
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import evaluate
from emi_models.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emi_models.data.clip import ClipSet

__all__ = [
    "TRAINING",
    "VARIANTS",
    "TrainingJob",
    "kept_result",
    "one_thread",
    "train_and_evaluate",
    "variant",
]


# The same for all stages of all systems: most epochs of a stage, and most epochs without a better one.
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


def _taemi(name: str, label: str, kind: VariantKind = "ablation", **network: object) -> Variant:
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
    """The variant of that name; it must exist."""
    return next(variant for variant in VARIANTS if variant.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One variant with one seed, on the clips of a folder; results are kept in `runs`."""

    variant: str
    seed: int
    epochs: int
    data: Path
    description: str  # the clips'
    runs: Path

    @property
    def folder(self) -> Path:
        """Folder of the training's curves and checkpoint."""
        return self.runs / f"{self.variant}-{self.seed}"

    @property
    def path(self) -> Path:
        """File of the result."""
        return self.runs / f"{self.variant}-{self.seed}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on, except the code; a kept result must have the same."""
        chosen = variant(self.variant)
        training = {**TRAINING, "max_epochs": self.epochs, "seed": self.seed}
        network = {key: list(v) if isinstance(v, tuple) else v for key, v in chosen.network.items()}
        return {"system": chosen.system, "network": network, "training": training, "data": self.description}


def one_thread() -> None:
    """Limit this process to one core, because several share the machine."""
    torch.set_num_threads(1)


def kept_result(job: TrainingJob) -> TrainingRun | None:
    """The kept result of a job; None if there is none.

    Raises:
        ConfigurationError: the file has other settings, or is not a result.
    """
    if not job.path.is_file():
        return None
    try:
        run: TrainingRun = from_json(TrainingRun, json.loads(job.path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ConfigurationError(f"{job.path} is not a result of a run: {error}; remove it") from error
    if run.settings != job.settings:
        raise ConfigurationError(
            f"{job.path} has other settings ({_difference(run.settings, job.settings)}); remove it, or "
            "name another folder with --runs"
        )
    return run


def train_and_evaluate(job: TrainingJob) -> TrainingRun:
    """Train, evaluate, and keep the result.

    Raises:
        EmiError: as `fit` and `evaluate` raise.
    """
    clips, settings = _clips(job.data), job.settings
    # On the CPU, and from the start even after an interruption, so that the time is that of a whole training.
    config = TrainConfig.model_validate(
        {"training": settings["training"] | {"device": "cpu"}, "network": settings["network"]}
    )
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit(settings["system"], clips, job.folder, config, force=True)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    network = load_checkpoint(fitted.checkpoint).network
    found = evaluate(network, clips, "valid", prefixes=(), system=settings["system"])
    whole = found.whole.mean_pearson
    run = TrainingRun(
        variant=job.variant,
        seed=job.seed,
        settings=settings,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        epochs={stage.name: len(stage.history) for stage in fitted.stages},
        wall_s=round(wall_s, 1),
        cpu_s=round(cpu_s, 1),
        n=found.n,
        rho=whole,
        rho_each=found.whole.pearson,
        # A modality that the network does not use is missing in any case.
        rho_without={m: found.without[m].mean_pearson if m in found.without else whole for m in MODALITIES},
        rho_alone={m: found.alone[m].mean_pearson for m in MODALITIES if m in found.alone},
    )
    with replacing(job.path) as part:
        part.write_text(json.dumps(to_json(run), indent=1) + "\n", encoding="utf-8")
    return run


@lru_cache(maxsize=1)
def _clips(folder: Path) -> ClipSet:
    """Opened once in each process, because it takes seconds."""
    return open_clips(folder)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f"{key} {old.get(key)!r}, not {new.get(key)!r}"
    return "the same"
