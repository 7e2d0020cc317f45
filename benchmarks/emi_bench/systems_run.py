"""One training of the comparison and its evaluation; its result is kept, so that it is done once."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from emi_bench.systems_variants import TRAINING, variant
from emi_live.errors import ConfigurationError
from emi_models.checkpoint import load_checkpoint
from emi_models.data import open_clips
from emi_models.data.files import replacing
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import evaluate
from emi_models.training.fit import fit
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emi_models.data.clip import ClipSet
    from emi_models.vocabulary import Modality

__all__ = ["Job", "Run", "finished", "one_thread", "run_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One variant with one seed, on the clips of a folder; `runs` is where results are kept."""

    variant: str
    seed: int
    epochs: int
    data: Path
    description: str  # the clips'
    runs: Path

    @property
    def folder(self) -> Path:
        """The training's own: its curves and checkpoint."""
        return self.runs / f"{self.variant}-{self.seed}"

    @property
    def path(self) -> Path:
        """Where the result is kept."""
        return self.runs / f"{self.variant}-{self.seed}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result hangs on beside the code: the same again, or it is another run."""
        chosen = variant(self.variant)
        training = {**TRAINING, "max_epochs": self.epochs, "seed": self.seed}
        network = {key: list(v) if isinstance(v, tuple) else v for key, v in chosen.network.items()}
        return {"system": chosen.system, "network": network, "training": training, "data": self.description}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a job. Correlations are Pearson's over the valid clips, the mean of the six emotions'."""

    variant: str
    seed: int
    settings: Mapping[str, Any]
    parameters: int
    epochs: Mapping[str, int]  # that each stage took
    wall_s: float  # of training
    cpu_s: float  # likewise, of this process
    n: int  # valid clips
    rho: float
    rho_each: tuple[float, ...]  # order of EMOTIONS
    rho_without: Mapping[Modality, float]  # the modality being absent from every clip
    rho_alone: Mapping[Modality, float]  # the other two being absent from every clip


def one_thread() -> None:
    """Limit this process to one core: several of them share the machine."""
    torch.set_num_threads(1)


def finished(job: Job) -> Run | None:
    """The result of a job that was done before; None if it was not.

    Raises:
        ConfigurationError: what is there is of other settings, or no result.
    """
    if not job.path.is_file():
        return None
    try:
        story = json.loads(job.path.read_text(encoding="utf-8"))
        run = Run(**{**story, "rho_each": tuple(story["rho_each"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{job.path} is no result of a run: {error}; remove it") from error
    if run.settings != job.settings:
        raise ConfigurationError(
            f"{job.path} is of other settings ({_difference(run.settings, job.settings)}); remove it, or "
            "name another folder with --runs"
        )
    return run


def run_job(job: Job) -> Run:
    """Train, evaluate, and keep the result.

    Raises:
        EmiError: as `fit` and `evaluate` raise.
    """
    clips, settings = _clips(job.data), job.settings
    # On the CPU, and from the start if it was interrupted: a time is that of a whole training.
    config = TrainConfig.model_validate(
        {"training": settings["training"] | {"device": "cpu"}, "network": settings["network"]}
    )
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit(settings["system"], clips, job.folder, config, force=True)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    network = load_checkpoint(fitted.checkpoint).network
    found = evaluate(network, clips, "valid", prefixes=(), system=settings["system"])
    whole = found.whole.mean_pearson
    run = Run(
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
        # A modality that the network never takes is missing in any case.
        rho_without={m: found.without[m].mean_pearson if m in found.without else whole for m in MODALITIES},
        rho_alone={m: found.alone[m].mean_pearson for m in MODALITIES if m in found.alone},
    )
    with replacing(job.path) as part:
        part.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    return run


@lru_cache(maxsize=1)
def _clips(folder: Path) -> ClipSet:
    """Opened once in each process: it takes seconds."""
    return open_clips(folder)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f"{key} {old.get(key)!r}, not {new.get(key)!r}"
    return "the same"
