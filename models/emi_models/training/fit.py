"""From clips to a checkpoint: runs a system's recipe, stage by stage, on Lightning.

`network_for` makes a network of the clips' sizes and modalities; `header_of` writes a checkpoint's metadata;
`own_state` gives back what a training changes in its process.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from safetensors import SafetensorError
from safetensors.torch import load_file

from emi_models import MODALITIES
from emi_models.checkpoint import CheckpointHeader, save_checkpoint
from emi_models.data.batches import ClipWindows, check_task, rated_clips, task_of
from emi_models.errors import TrainingError
from emi_models.networks import SYSTEMS, build_network, describe_config
from emi_models.targets import EMI_TARGETS, ranges_of, targets_of
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import choose_device, choose_precision
from emi_models.training.papers import recipe_of
from emi_models.training.results import StageResult, draw_learning, open_run
from emi_models.training.task import Bar, Keeper, StageTask, bars, score_words, seed_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from emi_models import Modality
    from emi_models.data.batches import RatedClips
    from emi_models.data.clip import ClipSet
    from emi_models.networks.base import FusionNetwork
    from emi_models.training.config import TrainingSettings
    from emi_models.training.recipe import Recipe, TrainingStage
    from emi_models.training.results import RunFolder

__all__ = ["FitResult", "fit", "header_of", "network_for", "own_state"]


@contextmanager
def own_state(settings: TrainingSettings, device: torch.device) -> Iterator[None]:
    """Random numbers, threads, warnings and log levels of the training's own; then the caller's again."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "GPU available: False", and the like
    devices = [device.index or 0] if device.type == "cuda" else []
    threads = torch.get_num_threads()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)  # few workers, few steps: both are meant
            # Lightning 2.6 on PyTorch 2.13, in every epoch; and with fp16 whenever a step is left out.
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)`")
            yield
    finally:
        logger.setLevel(level)
        torch.set_num_threads(threads)


def network_for(system: str, recipe: Recipe, clips: ClipSet, settings: Mapping[str, Any]) -> FusionNetwork:
    """A network of random weights for these clips, on the modalities that they have unless fewer are named.

    Args:
        system: its name.
        recipe: which may take some settings from the clips.
        clips: those to train on.
        settings: fields of the system's configuration, as JSON or TOML give them.

    Raises:
        TrainingError: a setting is unknown, or names a modality that the clips have not.
        CheckpointError: the settings are impossible together.
    """
    known = [field.name for field in fields(SYSTEMS[system][0]) if field.name not in ("shapes", "targets")]
    for name in settings:
        if name not in known:
            hint = "; the clips decide it" if name in ("shapes", "targets") else ""
            raise TrainingError(f"unknown setting 'network.{name}'{hint}; {system} knows: {', '.join(known)}")
    there = tuple(m for m in MODALITIES if m in clips.encoders)
    modalities = _modalities(settings.get("modalities", there), there)
    rest = {**recipe.network(clips), **settings}
    rest.pop("modalities", None)
    if task_of(clips) == "emi":
        rest["targets"] = len(targets_of(clips))
    return build_network(system, {"shapes": asdict(clips.shapes), **rest}, modalities)


def _modalities(asked: object, there: tuple[Modality, ...]) -> tuple[Modality, ...]:
    if not isinstance(asked, list | tuple) or not asked or not set(asked) <= set(there):
        raise TrainingError(
            f"network.modalities is {asked!r}; these clips have features of {', '.join(there) or 'none'}: "
            f"give a list of those, e.g. network.modalities='[\"{there[0] if there else 'text'}\"]'"
        )
    return tuple(m for m in MODALITIES if m in asked)


_LIBRARIES: Final = ("emi-live", "torch", "lightning")


def header_of(
    system: str,
    network: FusionNetwork,
    clips: RatedClips,
    config: TrainConfig,
    recipe: Recipe,
    last: StageResult,
) -> CheckpointHeader:
    """The metadata of a network that has just been trained; scores are those of its best epoch on valid.

    Notes: `missing`, what an absent modality does to it; `validation`, which clips chose the epoch, and
    `held_out` and `held_out_seed` where they were drawn from train; `prefixes` where windows were cut short.
    """
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    seed = config.training.seed
    notes = {"missing": recipe.missing(network.config), "validation": clips.validation, **clips.notes}
    if clips.drawn:
        notes |= {"held_out": str(config.data.held_out), "held_out_seed": str(config.data.held_out_seed)}
    if config.data.prefixes:
        notes["prefixes"] = f"{config.data.prefixes} of the training windows ended before their clip did"
    return CheckpointHeader(
        system=system,
        config=describe_config(network.config),
        modalities=network.config.modalities,
        encoders={str(modality): name for modality, name in clips.encoders.items()},
        data=clips.description,
        licence=clips.licence,
        scores=_scores(last),
        created_by=f"emi train, {system}, seed {seed}, epoch {last.best_epoch} of {last.name}; {libraries}",
        emotions=tuple(target.name for target in clips.rated) if network.config.task == "emi" else (),
        ranges=ranges_of(clips.rated),
        spans_s={**clips.spans_s, **{str(m): span for m, span in config.data.spans_s.items()}},
        notes=notes,
    )


def _scores(last: StageResult) -> dict[str, float]:
    """The score of the best epoch and its parts, to four digits."""
    name = f"{last.measure}_mean" if last.measure == "pearson" else last.measure
    parts = {key: value for key, value in last.best.items() if key.startswith("pearson_")}
    scores = {name: last.best["score"], **parts}
    return {f"valid_{name}": round(value, 4) for name, value in scores.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What a training has left: the checkpoint, and how each stage went."""

    checkpoint: Path
    stages: tuple[StageResult, ...]

    @property
    def score(self) -> float:
        """The last stage's best validation score: mean Pearson, or weighted F1."""
        return self.stages[-1].score


def fit(
    system: str,
    clips: ClipSet,
    out: Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> FitResult:
    """Train a system on clips as its recipe says; the best network, whole, is saved as a checkpoint.

    On a CPU the result depends on the clips, the settings, the number of threads and the versions of the
    libraries alone, and a run that was interrupted after any epoch and resumed gives the same weights to the
    last bit. The random state of the caller is left as it was.

    Args:
        system: one of `emi_models.training.papers.RECIPES`.
        clips: rated clips; where they have no valid split, a share of train is held out.
        out: the run's folder (`emi_models.training.results`).
        config: what differs from the recipe.
        resume: continue the run that is in `out`, if there is one.
        force: throw away the run that is in `out`.
        console: where progress is shown; None: nowhere.

    Raises:
        TrainingError: it cannot be done as asked; the message says why and what to do.
        DataError: a clip cannot be read.
        CheckpointError: the network's settings are impossible.
        KeyboardInterrupt: on Ctrl-C; what was done up to the last whole epoch is kept for `resume`.
    """
    config = config or TrainConfig()
    recipe = recipe_of(system)
    device = choose_device(config.training.device)
    rated = rated_clips(clips, config.data.held_out, config.data.held_out_seed)
    with own_state(config.training, device):
        torch.manual_seed(seed_of(config.training.seed, "weights"))
        network = network_for(system, recipe, rated, config.network)
        check_task(network.config, rated)
        stages = recipe.adjusted_stages(network.config, config.training)
        data = config.data
        run = _Run(
            folder=open_run(
                out, _metadata(system, network, rated, config, device), resume=resume, force=force
            ),
            config=config,
            learn=ClipWindows(rated, "train", data.prefixes, seed=config.training.seed, spans_s=data.spans_s),
            check=ClipWindows(rated, "valid", spans_s=data.spans_s),
            device=device,
            console=console,
        )
        run.announce(system, network, rated)
        with bars(console) as progress:
            results = tuple(
                run.train(number, stage, network, progress) for number, stage in enumerate(stages, start=1)
            )
    title = f"{system}, seed {config.training.seed}: {clips.description}"
    draw_learning(run.folder.curves, title, results)
    header = header_of(system, network, rated, config, recipe, results[-1])
    save_checkpoint(run.folder.checkpoint, network, header)
    return FitResult(checkpoint=run.folder.checkpoint, stages=results)


def _told_targets(learn: ClipWindows) -> list[str]:
    """A line on what is estimated, where that is not the six emotions."""
    if learn.rated == EMI_TARGETS:
        return []
    counts = learn.targets.isfinite().sum(dim=0).tolist()
    each = ", ".join(
        f"{target.name} ({target.low:g} to {target.high:g}) in {count} clips"
        for target, count in zip(learn.rated, counts, strict=True)
    )
    return [f"rated: {each}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One training under way."""

    folder: RunFolder
    config: TrainConfig
    learn: ClipWindows
    check: ClipWindows
    device: torch.device
    console: Console | None

    def announce(self, system: str, network: FusionNetwork, clips: RatedClips) -> None:
        """Say what is about to be trained, on what and where."""
        if self.console is None:
            return
        size = sum(parameter.numel() for parameter in network.parameters())
        precision = choose_precision(self.config.training.precision, self.device)
        on = ", ".join(network.config.modalities)
        for line in (
            f"{system}: {size:,} parameters on {on}; {self.device}, {precision}",
            f"{clips.description}; {len(self.learn)} clips train, validated on {clips.validation}",
            *_told_targets(self.learn),
        ):
            self.console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    def train(
        self, number: int, stage: TrainingStage, network: FusionNetwork, progress: Progress | None
    ) -> StageResult:
        """Train one stage, or what is left of it; `network` is then that of its best epoch."""
        place = self.folder.stage(number, stage.name)
        result = self.folder.result(number, stage.name)
        if result is None:
            result = self._trained(place, stage, network, progress)
            self.folder.finish(number, result)
        _restore(network, place / "best.safetensors")
        if self.console is not None:
            words = score_words(result.measure, result.score)
            line = f"{stage.name}: valid {words} in epoch {result.best_epoch}, best of {len(result.history)}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        return result

    def _trained(
        self, place: Path, stage: TrainingStage, network: FusionNetwork, progress: Progress | None
    ) -> StageResult:
        settings, seed = self.config, self.config.training.seed
        torch.manual_seed(seed_of(seed, stage.name, "objective"))
        objective = stage.objective(network)
        task = StageTask(objective, stage, self.learn, self.check, seed, settings.data)
        keeper = Keeper(place, stage.margin, stage.patience)
        told = [] if self.console is None else [Bar(progress, self.console, keeper)]
        gpu = self.device.type == "cuda"
        clipping = stage.clipping
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=[self.device.index or 0] if gpu else 1,
            precision=choose_precision(settings.training.precision, self.device),
            max_epochs=stage.epochs,
            gradient_clip_val=None if clipping is None else clipping.limit,
            gradient_clip_algorithm=None if clipping is None else clipping.by,
            callbacks=[*told, keeper],
            default_root_dir=place,
            reload_dataloaders_every_n_epochs=1,  # an epoch's order is that of its number, also when resumed
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        _run(trainer, task, place / "last.ckpt")
        return StageResult(
            name=stage.name,
            measure=objective.measure,
            best_epoch=keeper.best_epoch,
            score=keeper.best,
            history=tuple(keeper.history),
        )


def _restore(network: FusionNetwork, best: Path) -> None:
    """Make the network that of the stage's best epoch, all of it."""
    try:
        network.load_state_dict(load_file(best))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(f"{best} is damaged or gone; start again with --force") from error
    network.requires_grad_(True)


def _run(trainer: pl.Trainer, task: StageTask, state: Path) -> None:
    """Train on from the saved state, or from the start if there is none.

    Lightning answers Ctrl-C by ignoring further ones and ending the process; here it is an exception again.
    """
    there = state.is_file()
    if there:
        try:
            torch.load(state, map_location="meta", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways, the unpickler's among them
            raise TrainingError(
                f"{state} is damaged ({type(error).__name__}); start again with --force"
            ) from error
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, ckpt_path=state if there else None, weights_only=True if there else None)
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def _metadata(
    system: str, network: FusionNetwork, clips: RatedClips, config: TrainConfig, device: torch.device
) -> dict[str, Any]:
    """What makes a run this run and no other: all that its result depends on."""
    settings = config.model_dump(mode="json")
    for section, name in (("training", "device"), ("training", "threads"), ("data", "workers")):
        settings[section].pop(name)  # a run may go on elsewhere
    content = hashlib.sha256()
    own = {} if clips.rated == EMI_TARGETS else {"targets": [asdict(target) for target in clips.rated]}
    for split in ("train", "valid"):
        content.update("\n".join(clips.ids(split)).encode())
        content.update(clips.targets(split).tobytes())
    return {
        "system": system,
        "modalities": list(network.config.modalities),
        "network": describe_config(network.config),
        "settings": settings,
        "precision": choose_precision(config.training.precision, device),
        "data": {
            "description": clips.description,
            "encoders": dict(clips.encoders),
            "clips": {split: len(clips.ids(split)) for split in ("train", "valid")},
            "ratings_sha256": content.hexdigest(),
            **own,
        },
    }
