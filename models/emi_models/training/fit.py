"""From clips to a checkpoint: runs a system's recipe, stage by stage, on Lightning.

`network_for` makes a network of the clips' sizes and modalities; `header_of` writes a checkpoint's metadata;
`own_state` gives back what a training changes in its process.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from multiprocessing import active_children
from typing import TYPE_CHECKING, Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.multiprocessing.spawn import ProcessRaisedException

from emi_models import MODALITIES
from emi_models.checkpoint import CheckpointHeader, save_checkpoint
from emi_models.data.batches import (
    ClipWindows,
    baseline_of,
    check_task,
    motion_dim_of,
    rated_clips,
    task_of,
)
from emi_models.data.raters import read_raters, weights_by_raters
from emi_models.device import choose_device, choose_precision
from emi_models.errors import TrainingError
from emi_models.libraries import require
from emi_models.networks import SYSTEMS, build_network, describe_config
from emi_models.processes import end_processes
from emi_models.targets import EMI_TARGETS, ranges_of, targets_of
from emi_models.training.config import TrainConfig
from emi_models.training.papers import recipe_of
from emi_models.training.recipe import Regression, correlation_loss
from emi_models.training.results import StageResult, draw_learning, open_run
from emi_models.training.scale import scaled
from emi_models.training.task import Bar, Keeper, Lines, StageTask, bars, score_words, seed_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from lightning.pytorch.callbacks import Callback
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.progress import Progress

    from emi_models import Modality
    from emi_models.data.batches import RatedClips
    from emi_models.data.clip import ClipSet
    from emi_models.networks.base import FusionNetwork
    from emi_models.training.config import TrainingSettings
    from emi_models.training.encoders import TrainedEncoders
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
    if motion_dim_of(clips) and system != "two_stage":
        raise TrainingError(f"{system} has no branch for motion; leave it out, or train two_stage")
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
    `held_out` and `held_out_seed` where they were drawn from train; `use` and `held_out_seed` where valid
    clips were trained on; `prefixes` where windows were cut short; `baseline` where clips were made relative
    to a neutral of one's own.
    """
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    seed = config.training.seed
    notes = {"missing": recipe.missing(network.config), "validation": clips.validation, **clips.notes}
    if clips.drawn:
        notes |= {"held_out": str(config.data.held_out), "held_out_seed": str(config.data.held_out_seed)}
    if config.data.use != "train":
        notes |= {"use": config.data.use, "held_out_seed": str(config.data.held_out_seed)}
    if weights := network.modality_weights():
        notes["modality_weights"] = ", ".join(f"{m} {share:.3f}" for m, share in weights.items())
    if config.data.raters is not None:
        notes["raters"] = "clips were shown in proportion to the root of their raters"
    if (baseline := baseline_of(clips)) != "off":
        notes["baseline"] = baseline
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
    """The score of the best epoch and its parts, to four digits; none where no clip validated."""
    if "valid_loss" not in last.best:
        return {}
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
        """The last stage's best validation score: mean Pearson, or weighted F1.

        Where no clip validated, the negative training loss of the last epoch.
        """
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

    With `data.use=train+valid` no clip validates: every stage trains all of its epochs and keeps the last.

    Raises:
        TrainingError: it cannot be done as asked; the message says why and what to do.
        DataError: a clip cannot be read.
        CheckpointError: the network's settings are impossible.
        KeyboardInterrupt: on Ctrl-C; what was done up to the last whole epoch is kept for `resume`.
    """
    config = config or TrainConfig()
    recipe = recipe_of(system)
    device = choose_device(config.training.device)
    rated = rated_clips(clips, config.data.held_out, config.data.held_out_seed, config.data.use)
    config, by_clips = scaled(system, config, len(rated.ids("train")))
    with own_state(config.training, device):
        torch.manual_seed(seed_of(config.training.seed, "weights"))
        network = network_for(system, recipe, rated, config.network)
        check_task(network.config, rated)
        stages = recipe.adjusted_stages(network.config, config.training)
        _check_devices(config.training, stages, device)
        if config.training.loss == "correlation" and not any(
            isinstance(stage.objective, type) and issubclass(stage.objective, Regression) for stage in stages
        ):
            raise TrainingError(
                f"training.loss=correlation is for recipes of one squared error, and that of {system} has a "
                "loss of its own; leave it out"
            )
        encoders = _encoders(rated, config)
        learn, check = _windows(rated, config, encoders)
        weights = _weights(learn, config)
        run = _Run(
            folder=open_run(
                out, _metadata(system, network, rated, config, device), resume=resume, force=force
            ),
            config=config,
            learn=learn,
            check=check,
            device=device,
            encoders=encoders,
            weights=weights,
            by_clips=by_clips,
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
    if by_clips:
        told = " ".join(f"{name}={value:g}" for name, value in by_clips.items())
        header = replace(header, notes={**header.notes, "scaled": f"by the number of clips: {told}"})
    if encoders is not None:
        header = _with_tuned(header, encoders, run.folder.path / "encoders")
    save_checkpoint(run.folder.checkpoint, network, header)
    run.tell_weights(network)
    return FitResult(checkpoint=run.folder.checkpoint, stages=results)


def _encoders(clips: RatedClips, config: TrainConfig) -> TrainedEncoders | None:
    """The encoders that are trained with the network, None if there are none to train."""
    if not config.encoders.train:
        return None
    require("transformers", extra="taemi", what="--train-encoders")
    from emi_models.training.encoders import TrainedEncoders, encoder_folders

    if config.data.prefixes or config.data.spans_s:
        raise TrainingError(
            "encoders are trained on whole clips, as in the papers; leave out data.prefixes and data.spans_s"
        )
    torch.manual_seed(seed_of(config.training.seed, "encoders"))  # of LoRA's matrices
    return TrainedEncoders(encoder_folders(clips, config.encoders), config.encoders)


def _windows(
    clips: RatedClips, config: TrainConfig, encoders: TrainedEncoders | None
) -> tuple[ClipWindows, ClipWindows | None]:
    """The clips to train on and to validate on (None: no clip validates), with media for trained encoders."""
    data, seed, validates = config.data, config.training.seed, bool(clips.ids("valid"))
    if encoders is None:
        return (
            ClipWindows(clips, "train", data.prefixes, seed=seed, spans_s=data.spans_s),
            ClipWindows(clips, "valid", spans_s=data.spans_s) if validates else None,
        )
    from emi_models.training.media_windows import MediaWindows

    checked = MediaWindows(clips, "valid", encoders) if validates else None
    return MediaWindows(clips, "train", encoders, seed=seed), checked


def _weights(learn: ClipWindows, config: TrainConfig) -> NDArray[np.float64] | None:
    """How often each clip is shown, by its raters; None: once an epoch."""
    if config.data.raters is None:
        return None
    if config.data.bucketed:
        raise TrainingError("data.raters does not go with data.bucketed; leave one of them out")
    return weights_by_raters(learn.ids, read_raters(config.data.raters.expanduser()))


def _check_devices(settings: TrainingSettings, stages: Sequence[TrainingStage], device: torch.device) -> None:
    """Return if batches can be shared among the processes, and each has a device; else raise."""
    count = settings.devices
    if count > 1 and device.type == "cuda" and count > torch.cuda.device_count():
        raise TrainingError(
            f"training.devices is {count}, and PyTorch sees {torch.cuda.device_count()} GPUs; choose fewer"
        )
    for stage in stages:
        if stage.batch_size % count:
            raise TrainingError(
                f"training.devices is {count}, and the batches of stage {stage.name} have {stage.batch_size} "
                "clips; choose a training.batch_size that is a multiple of it"
            )


def _with_tuned(header: CheckpointHeader, encoders: TrainedEncoders, folder: Path) -> CheckpointHeader:
    """Save the trained encoders, and name them in the header."""
    from emi_models.training.encoders import save_encoders, tuned_notes

    ids = save_encoders(encoders, folder)
    base = ", ".join(f"{m} from {encoders.base_ids[m]}" for m in ids)
    return replace(
        header,
        encoders={**header.encoders, **{str(m): name for m, name in ids.items()}},
        notes={**header.notes, **tuned_notes(ids), "encoders": f"trained together with the network: {base}"},
    )


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
    check: ClipWindows | None  # None: no clip validates
    device: torch.device
    encoders: TrainedEncoders | None
    weights: NDArray[np.float64] | None  # how often each clip is shown; None: once an epoch
    by_clips: Mapping[str, Any]  # settings that the number of clips has decided
    console: Console | None

    def tell_weights(self, network: FusionNetwork) -> None:
        """Print what each modality's prediction has learned to count, if it has."""
        weights = network.modality_weights()
        if self.console is not None and weights:
            told = ", ".join(f"{modality} {share:.3f}" for modality, share in weights.items())
            self.console.print(f"learned weights: {told}", markup=False, highlight=False, soft_wrap=True)

    def announce(self, system: str, network: FusionNetwork, clips: RatedClips) -> None:
        """Say what is about to be trained, on what and where."""
        if self.console is None:
            return
        size = sum(parameter.numel() for parameter in network.parameters())
        precision = choose_precision(self.config.training.precision, self.device)
        on = ", ".join(network.config.modalities)
        frozen = "" if self.encoders is not None else ", frozen encoders"
        for line in (
            f"{system}: {size:,} parameters on {on}; {self.device}, {precision}{frozen}",
            f"{clips.description}; {len(self.learn)} clips train, validated on {clips.validation}",
            *(() if self.check else ("each stage trains all of its epochs, and its last epoch is kept",)),
            *self._encoder_lines(),
            *_told_targets(self.learn),
            *self._weight_lines(),
            *self._scale_lines(),
        ):
            self.console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    def _scale_lines(self) -> list[str]:
        """What the number of clips has decided."""
        if not self.by_clips:
            return []
        told = " ".join(f"{name}={value:g}" for name, value in self.by_clips.items())
        return [f"{len(self.learn)} clips are few: {told} (the paper's: training.recipe=paper)"]

    def _weight_lines(self) -> list[str]:
        """How unlike each other clips count, if they do."""
        if self.weights is None:
            return []
        low, high = self.weights.min(), self.weights.max()
        return [f"clips count by the root of their raters: {low:.2f} to {high:.2f} times an epoch"]

    def _encoder_lines(self) -> list[str]:
        """What is trained of which encoder."""
        if self.encoders is None:
            return []
        state = self.encoders.tuned_state()
        lines = []
        for modality, name in self.encoders.base_ids.items():
            part = sum(
                tensor.numel()
                for key, tensor in state.items()
                if key.startswith(f"models.{modality}.") or (modality == "audio" and key.startswith("head."))
            )
            lines.append(f"encoder of {modality}: {name}, {part:,} parameters train")
        return lines

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
        tuned = place / "encoders.safetensors"
        if self.encoders is not None and tuned.is_file():
            self.encoders.load_tuned(load_file(tuned))
        if self.console is not None:
            words = score_words(result.measure, result.score)
            line = f"{stage.name}: valid {words} in epoch {result.best_epoch}, best of {len(result.history)}"
            if self.check is None:
                line = f"{stage.name}: {len(result.history)} epochs, the last is kept; train {words}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        return result

    def _trained(
        self, place: Path, stage: TrainingStage, network: FusionNetwork, progress: Progress | None
    ) -> StageResult:
        settings, seed = self.config, self.config.training.seed
        torch.manual_seed(seed_of(seed, stage.name, "objective"))
        objective = stage.objective(network)
        if settings.training.loss == "correlation" and isinstance(objective, Regression):
            objective.error = correlation_loss
        task = StageTask(
            *(objective, stage, self.learn, self.check, seed, settings.data),
            encoders=self.encoders,
            threads=settings.training.threads,
            weights=self.weights,
        )
        last = self.check is None
        keeper = Keeper(place, stage.margin, stage.patience, last=last)
        count = settings.training.devices
        told: list[Callback] = []
        if self.console is not None:  # a console cannot be sent to another process
            told.append(Bar(progress, self.console, keeper) if count == 1 else Lines())
        gpu = self.device.type == "cuda"
        clipping = stage.clipping
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=([self.device.index or 0] if gpu else 1) if count == 1 else count,
            strategy="auto" if count == 1 else DDPStrategy(start_method="spawn", find_unused_parameters=True),
            use_distributed_sampler=False,
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
            limit_val_batches=0 if last else 1.0,
        )
        with _sharing() if count > 1 else nullcontext():
            _run(trainer, task, place / "last.ckpt")
        if count > 1:  # the keepers were those of the processes
            keeper.load_state_dict(_kept(place / "last.ckpt"))
        return StageResult(
            name=stage.name,
            measure="loss" if last else objective.measure,
            best_epoch=keeper.best_epoch,
            score=keeper.best,
            history=tuple(keeper.history),
        )


@contextmanager
def _sharing() -> Iterator[None]:
    """Send tensors to the processes by files: the default way sends one descriptor twice, which fails."""
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")
    try:
        yield
    finally:
        torch.multiprocessing.set_sharing_strategy(before)


def _kept(state: Path) -> dict[str, Any]:
    """The state of the keeper in a stage's last state."""
    saved = torch.load(state, map_location="cpu", weights_only=True, mmap=True)
    kept: dict[str, Any] = next(
        value for key, value in saved["callbacks"].items() if key.startswith(Keeper.__name__)
    )
    return kept


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
    handler, strangers = signal.getsignal(signal.SIGINT), set(active_children())
    try:
        trainer.fit(task, ckpt_path=state if there else None, weights_only=True if there else None)
    except ProcessRaisedException as error:
        last = str(error).strip().rpartition("\n")[2]
        raise TrainingError(f"a training process failed: {last.partition(': ')[2] or last}") from error
    except SystemExit:
        if not trainer.interrupted:
            raise
        if trainer.world_size > 1:  # one that is only starting outlives Lightning's own end of it
            end_processes([child for child in active_children() if child not in strangers])
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
    own: dict[str, Any] = {}
    if clips.rated != EMI_TARGETS:
        own["targets"] = [asdict(target) for target in clips.rated]
    if (baseline := baseline_of(clips)) != "off":
        own["baseline"] = baseline
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
