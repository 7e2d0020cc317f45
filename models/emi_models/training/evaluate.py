"""How good a network is on clips: by emotion, by seconds shown, and by modalities shown.

A clip is shown as live use shows it: as it ends, or at 12 s if it is longer; and at each prefix. No score
depends on how clips were batched: a prediction depends on its own clip alone, and scores are over all
at once.

What an evaluation has found, as numbers that JSON can hold.

How good predictions are: the field's measures by torchmetrics, with what they leave open decided here.

A column that does not vary, in the predictions or in the ratings, has no correlation: it counts 0, so that a
network gains nothing by an emotion about which it has learned nothing. Each column is scored on the clips
that are rated for it. All is computed in float64, over all clips at once: no score depends on how clips were
batched.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torchmetrics.functional.classification import binary_average_precision, multiclass_f1_score
from torchmetrics.functional.regression import concordance_corrcoef, mean_squared_error, pearson_corrcoef

from emi_models import EMOTIONS, MODALITIES
from emi_models.checkpoint import TUNED_KEY, load_checkpoint
from emi_models.data.batches import LEAST_CLIPS, baseline_of, check_task, collate, rated_clips, rated_part
from emi_models.data.clip import WINDOW_S, Clip, FeatureTrack
from emi_models.device import choose_device
from emi_models.errors import TrainingError
from emi_models.inputs import FusionInputs
from emi_models.targets import EMI_TARGETS, targets_of
from emi_models.training.config import DataSettings
from emi_models.training.published import HEADING, published_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionShapes
    from emi_models.networks.base import FusionNetwork
    from emi_models.networks.config import NetworkConfig, Task
    from emi_models.targets import Target
    from emi_models.training.published import Published

__all__ = [
    "PREFIXES_S",
    "Evaluation",
    "PrefixScores",
    "Scores",
    "average_precision",
    "check_fit",
    "check_widths",
    "clips_seen",
    "concordance",
    "evaluate",
    "evaluate_checkpoint",
    "macro_f1",
    "mean_squared",
    "pearson",
    "predict",
    "score",
    "shown_windows",
    "video_logits",
    "weighted_f1",
]


def pearson(predicted: Tensor, truth: Tensor) -> Tensor:
    """Pearson's correlation of each column, (K,) float64, from (N, K) each; 0 where one does not vary."""
    return _agreement(pearson_corrcoef, predicted, truth)


def concordance(predicted: Tensor, truth: Tensor) -> Tensor:
    """Lin's concordance of each column, (K,) float64, from (N, K) each; 0 where one does not vary."""
    return _agreement(concordance_corrcoef, predicted, truth)


def mean_squared(predicted: Tensor, truth: Tensor) -> Tensor:
    """The mean squared error of each column, (K,) float64, from (N, K) each, N at least 1."""
    if not bool((rated := truth.isfinite()).all()):
        apart = torch.where(rated, predicted.double() - truth.double(), 0.0)
        return (apart**2).sum(dim=0) / rated.sum(dim=0).clamp(min=1)
    error: Tensor = mean_squared_error(predicted.double(), truth.double(), num_outputs=truth.shape[1])
    return error.reshape(-1)


def weighted_f1(logits: Tensor, truth: Tensor) -> Tensor:
    """F1 of both answers, weighed by how often each is true: (1,) float64, from (N, 1) each, truth 0 or 1."""
    answer, true = (logits > 0).long().flatten(), (truth > 0.5).long().flatten()
    score: Tensor = multiclass_f1_score(answer, true, num_classes=2, average="weighted")
    return score.double().reshape(1)


def macro_f1(logits: Tensor, truth: Tensor) -> Tensor:
    """The mean F1 of both answers, each as important: (1,) float64, from (N, 1) each, truth 0 or 1."""
    answer, true = (logits > 0).long().flatten(), (truth > 0.5).long().flatten()
    score: Tensor = multiclass_f1_score(answer, true, num_classes=2, average="macro")
    return score.double().reshape(1)


def average_precision(logits: Tensor, truth: Tensor) -> Tensor:
    """The area under precision against recall: (1,) float64, from (N, 1) each; 0 where nothing is true."""
    true = (truth > 0.5).long().flatten()
    if not bool(true.any()):
        return torch.zeros(1, dtype=torch.float64)
    area: Tensor = binary_average_precision(logits.double().flatten().sigmoid(), true)
    return area.double().reshape(1)


def score(
    measure: str, predicted: Tensor, truth: Tensor, names: Sequence[str] = EMOTIONS
) -> dict[str, float]:
    """What a validation is judged by, as `score`, with the parts that it is the mean of, by target."""
    if measure == "weighted_f1":
        return {"score": float(weighted_f1(predicted, truth))}
    each = pearson(predicted, truth)
    parts = {f"pearson_{name}": float(rho) for name, rho in zip(names, each, strict=True)}
    return {"score": float(each.mean()), **parts}


def _agreement(measure: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, truth: Tensor) -> Tensor:
    rated = truth.isfinite()
    if not bool(rated.all()):  # column by column, each on the clips that are rated for it
        columns = zip(predicted.T[:, :, None], truth.T[:, :, None], rated.T, strict=True)
        return torch.cat([_agreement(measure, p[there], t[there]) for p, t, there in columns])
    if len(truth) < 2:
        return torch.zeros(truth.shape[1], dtype=torch.float64)
    with warnings.catch_warnings():
        # A column that does not vary: torchmetrics says so in a warning and answers NaN.
        warnings.filterwarnings("ignore", message="The variance of predictions or target is close to zero")
        agreement = measure(predicted.double(), truth.double())
    return agreement.reshape(-1).nan_to_num(nan=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores over n clips: Pearson, concordance and squared error, one each for the targets of `names`.

    The squared error is in the targets' own units. `rated` says how many clips are rated for each. For
    ambivalence and hesitancy these are empty, and `weighted_f1` is the score.
    """

    n: int
    pearson: tuple[float, ...] = ()
    ccc: tuple[float, ...] = ()
    mse: tuple[float, ...] = ()
    weighted_f1: float | None = None
    macro_f1: float | None = None
    average_precision: float | None = None
    names: tuple[str, ...] = EMOTIONS
    rated: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, predicted: Tensor, truth: Tensor, task: Task = "emi", targets: Sequence[Target] = EMI_TARGETS
    ) -> Scores:
        """The scores of predictions (N, K) against ratings (N, K), both shares of the targets' ranges."""
        n = len(truth)
        if task == "bah":
            return cls(
                n=n,
                weighted_f1=float(weighted_f1(predicted, truth)),
                macro_f1=float(macro_f1(predicted, truth)),
                average_precision=float(average_precision(predicted, truth)),
            )
        columns = (measure(predicted, truth).tolist() for measure in (pearson, concordance, mean_squared))
        rho, ccc, mse = (tuple(column) for column in columns)
        return cls(
            n=n,
            pearson=rho,
            ccc=ccc,
            mse=tuple(error * target.span**2 for error, target in zip(mse, targets, strict=True)),
            names=tuple(target.name for target in targets),
            rated=tuple(truth.isfinite().sum(dim=0).tolist()),
        )

    @property
    def mean_pearson(self) -> float:
        """The field's score: Pearson's correlation averaged over the targets."""
        return sum(self.pearson) / len(self.pearson)

    @property
    def score(self) -> float:
        """What the network is judged by: mean Pearson, or weighted F1."""
        return self.mean_pearson if self.weighted_f1 is None else self.weighted_f1

    def to_json(self) -> dict[str, Any]:
        """Means next to each target's own."""
        if self.weighted_f1 is not None:
            return {
                "n": self.n,
                "weighted_f1": self.weighted_f1,
                "macro_f1": self.macro_f1,
                "average_precision": self.average_precision,
            }
        columns = {"pearson": self.pearson, "ccc": self.ccc, "mse": self.mse}
        part = any(count < self.n for count in self.rated)
        partly = {"rated": dict(zip(self.names, self.rated, strict=True))} if part else {}
        return {"n": self.n, **partly} | {
            name: {"mean": sum(values) / len(values), **dict(zip(self.names, values, strict=True))}
            for name, values in columns.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixScores:
    """Scores when no clip is shown beyond `seconds`; `cut` clips are longer, the others are shown whole."""

    seconds: float
    cut: int
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a network does on the clips of one split."""

    system: str
    task: Task
    data: str  # the set's description
    split: str  # and where it comes from
    n: int  # rated clips
    whole: Scores  # every clip as it ends, or at 12 s
    prefixes: tuple[PrefixScores, ...]
    without: Mapping[Modality, Scores] = field(default_factory=dict)  # whole clips, one modality taken away
    alone: Mapping[Modality, Scores] = field(default_factory=dict)  # whole clips, the others taken away
    videos: Scores | None = None  # for ambivalence: whole videos (`video_scores`)
    published: tuple[Published, ...] = ()  # empty where the data are others
    tuned: tuple[Modality, ...] = ()  # whose encoders were trained with the network
    weights: Mapping[Modality, float] = field(default_factory=dict)  # learned ones, of the multi-task variant

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "system": self.system,
            "task": self.task,
            "data": self.data,
            "split": self.split,
            "n": self.n,
            "whole": self.whole.to_json(),
            "prefixes": [{"seconds": p.seconds, "cut": p.cut, **p.scores.to_json()} for p in self.prefixes],
            "without": {modality: scores.to_json() for modality, scores in self.without.items()},
            "alone": {modality: scores.to_json() for modality, scores in self.alone.items()},
            "tuned": list(self.tuned),
            "weights": dict(self.weights),
            **({} if self.videos is None else {"videos": self.videos.to_json()}),
            "published": {"heading": HEADING, "rows": [asdict(row) for row in self.published]},
        }


PREFIXES_S: Final = (1.0, 2.0, 4.0, 8.0, 12.0)
NS_PER_S: Final = 1_000_000_000


def evaluate_checkpoint(
    path: Path,
    clips: ClipSet,
    split: str = "valid",
    *,
    batch_size: int = 32,
    device: str = "cpu",
    prefixes: Sequence[float] = PREFIXES_S,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """What the network of a checkpoint does on clips of the features that it was trained on.

    Encoders that were trained with the network run here, on the clips' media (`emi extract --keep-media`),
    unless the features are theirs already. Then only whole clips are scored, no prefixes.
    A set without a valid split gets the one that training held out, as the checkpoint's notes say, or as a
    training with no settings would draw it. After a training with `data.use=4:1`, `valid` is what it left.

    Raises:
        CheckpointError: the file is no checkpoint that can be used.
        TrainingError: the clips are not of its features, or too few of the split are rated.
    """
    loaded = load_checkpoint(path)
    header = loaded.header
    tuned = tuple(m for m in MODALITIES if TUNED_KEY.format(m) in header.notes)
    seen = clips_seen(path, header, clips)
    if seen is not clips:
        clips, prefixes = seen, ()  # what was said by a moment inside a clip is not stored
    if header.task == "emi" and header.targets != targets_of(clips):
        raise TrainingError(
            f"the checkpoint estimates {_listed(header.targets)}, and the clips are opened for "
            f"{_listed(targets_of(clips))}; open them with targets=header.targets"
        )
    check_fit(header, loaded.network, clips)
    where, use = split, header.notes.get("use", "train")
    if use == "train+valid" and split in ("train", "valid"):
        where = f"{split}: these clips were trained on"
    elif split == "valid" and (use == "4:1" or not clips.ids("valid")):
        usual = DataSettings()
        share = float(header.notes.get("held_out", usual.held_out))
        seed = int(header.notes.get("held_out_seed", usual.held_out_seed))
        clips = rated_clips(clips, share, seed, "4:1" if use == "4:1" and clips.ids("valid") else "train")
        where = f"valid: {clips.validation}"
    found = evaluate(
        loaded.network,
        clips,
        split,
        where=where,
        spans_s={m: span for m, span in header.spans_s.items() if m in MODALITIES},
        batch_size=batch_size,
        device=device,
        prefixes=prefixes,
        system=header.system,
        advance=advance,
    )
    return replace(found, tuned=tuned, weights=loaded.network.modality_weights())


def clips_seen(path: Path, header: CheckpointHeader, clips: ClipSet) -> ClipSet:
    """The clips as a checkpoint's own encoders see them, if these were trained with it; else as they are.

    Raises:
        CheckpointError: an encoder that the checkpoint names is not next to it.
        TrainingError: it has trained encoders, and the clips have no media.
    """
    tuned = [m for m in MODALITIES if TUNED_KEY.format(m) in header.notes]
    if all(clips.encoders.get(m) == header.encoders[m] for m in tuned):
        return clips
    from emi_models.training.encoders import TunedClips

    return TunedClips(clips, path, header)


def _listed(targets: Sequence[Target]) -> str:
    return ", ".join(f"{t.name} ({t.low:g} to {t.high:g})" for t in targets)


def check_fit(header: CheckpointHeader, network: FusionNetwork, clips: ClipSet) -> None:
    """Return if these clips' features are what the network was trained on: of its encoders and its baseline.

    Raises:
        TrainingError: they are others; the message names both.
    """
    trained_with, opened_with = header.notes.get("baseline", "off"), baseline_of(clips)
    if trained_with != opened_with:
        raise TrainingError(
            f"the checkpoint was trained with --baseline {trained_with}, these clips are opened with "
            f"{opened_with}; choose checkpoints of one baseline, or train again"
        )
    for modality in network.config.modalities:
        trained, given = header.encoders[modality], clips.encoders.get(modality)
        if given is not None and given != trained:
            raise TrainingError(
                f"the checkpoint was trained on {modality} features of {trained}, these clips have those of "
                f"{given}; extract the clips again with its bundle, or choose another checkpoint"
            )


def evaluate(
    network: FusionNetwork,
    clips: ClipSet,
    split: str = "valid",
    *,
    where: str | None = None,
    spans_s: Mapping[Modality, float] | None = None,
    batch_size: int = 32,
    device: str = "cpu",
    prefixes: Sequence[float] = PREFIXES_S,
    system: str = "",
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """What a network does on the rated clips of a split. It is left in evaluation mode, on the CPU.

    Args:
        network: of the clips' widths.
        clips: each is loaded once.
        split: `train`, `valid` or `test`.
        where: how the split is called in the result, if not by its name.
        spans_s: seconds before a window's end that a modality is shown, where it is not 12.
        batch_size: clips that are shown together.
        device: cpu, cuda, cuda:N or auto.
        prefixes: seconds, each in (0, 12].
        system: the network's name in the result.
        advance: told how many more clips are done.

    Raises:
        TrainingError: fewer than two clips of the split are rated, they are of other widths or rated for
            another task than the network's, or there is no such device.
    """
    chosen = choose_device(device)
    check_widths(network, clips)
    ids, targets = rated_part(clips, split)
    if len(ids) < LEAST_CLIPS:
        others = {name: len(clips.ids(name)) for name in ("train", "valid", "test")}
        raise TrainingError(
            f"{len(ids)} rated clips in {split}, at least {LEAST_CLIPS} are needed; the set has "
            + ", ".join(f"{count} clips in {name}" for name, count in others.items())
        )
    check_task(network.config, clips)
    rated = targets_of(clips)
    views = _views(network.config.modalities)
    found: dict[object, list[Tensor]] = defaultdict(list)
    if network.config.task == "bah":
        prefixes = ()  # a chunk of BAH has a moment in its middle, and no course
    cut = dict.fromkeys(prefixes, 0)
    network.eval().to(chosen)
    try:
        for start in range(0, len(ids), batch_size):
            batch = [clips.load(clip_id) for clip_id in ids[start : start + batch_size]]
            whole = shown_windows(network, batch, WINDOW_S, spans_s)
            for name, gone in views.items():
                found[name].append(predict(network, whole.without(*gone)))
            for seconds in prefixes:
                found[seconds].append(predict(network, shown_windows(network, batch, seconds, spans_s)))
                cut[seconds] += sum(clip.duration_ns > seconds * NS_PER_S for clip in batch)
            if advance is not None:
                advance(len(batch))
    finally:
        network.cpu()
    truth, task = torch.from_numpy(targets), network.config.task
    scores = {key: Scores.of(torch.cat(parts), truth, task, rated) for key, parts in found.items()}
    return Evaluation(
        system=system,
        task=task,
        data=clips.description,
        split=where or split,
        n=len(ids),
        whole=scores["whole"],
        prefixes=tuple(PrefixScores(seconds=s, cut=cut[s], scores=scores[s]) for s in prefixes),
        without={m: scores["without", m] for m in network.config.modalities if ("without", m) in scores},
        alone={m: scores["alone", m] for m in network.config.modalities if ("alone", m) in scores},
        videos=_of_videos(ids, torch.cat(found["whole"]), truth) if task == "bah" else None,
        published=published_for(clips.description) if task == "emi" and rated == EMI_TARGETS else (),
    )


SMOOTHED: Final = 24  # frames, 1 s at BAH's rate, over which a video's highest probability is a mean


def video_logits(ids: Sequence[str], logits: Tensor) -> dict[str, Tensor]:
    """One logit a video from those (N, 1) of its frames `<video>#<frame>`, in the order of `ids`.

    That of its highest probability, as a mean over 24 consecutive frames of `ids` or over all of fewer: so
    one frame alone does not decide. The 10th ABAW scores videos and leaves this to the participants.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, clip_id in enumerate(ids):
        rows[clip_id.rpartition("#")[0]].append(row)
    found = {}
    for video, places in rows.items():
        shares = logits[places].double().flatten().sigmoid()
        means = shares.unfold(0, min(SMOOTHED, len(shares)), 1).mean(dim=1)
        found[video] = means.max().clamp(1e-9, 1 - 1e-9).logit()
    return found


def _of_videos(ids: Sequence[str], logits: Tensor, truth: Tensor) -> Scores:
    """The scores of whole videos; a video is true if one of its frames is."""
    found = video_logits(ids, logits)
    true = dict.fromkeys(found, 0.0)
    for clip_id, value in zip(ids, truth.flatten().tolist(), strict=True):
        video = clip_id.rpartition("#")[0]
        true[video] = max(true[video], value)
    columns = (torch.stack(list(found.values()))[:, None], torch.tensor(list(true.values()))[:, None])
    return Scores.of(*columns, task="bah")


@torch.inference_mode()
def predict(network: FusionNetwork, window: FusionInputs) -> Tensor:
    """Predictions (B, K) on the CPU, wherever the network is."""
    device = next(network.parameters()).device
    return network(FusionInputs(*(tensor.to(device) for tensor in window.tensors()))).cpu()


def _views(modalities: Sequence[Modality]) -> dict[object, tuple[Modality, ...]]:
    """What is taken away in each view of a whole clip; a network of one modality has one view."""
    views: dict[object, tuple[Modality, ...]] = {"whole": ()}
    if len(modalities) > 1:
        for modality in modalities:
            views["without", modality] = (modality,)
            views["alone", modality] = tuple(m for m in MODALITIES if m != modality)
    return views


def shown_windows(
    network: FusionNetwork, batch: Sequence[Clip], seconds: float, spans_s: Mapping[Modality, float] | None
) -> FusionInputs:
    """The clips as they are `seconds` after their start, or at their end if that comes first."""
    rows = []
    for clip in batch:
        end_ns = min(clip.duration_ns, round(seconds * NS_PER_S))
        used, shapes = _shown(clip, network.config)
        rows.append((used.window(shapes, end_ns, spans_s), torch.zeros(1)))
    return collate(rows)[0]


def _shown(clip: Clip, config: NetworkConfig) -> tuple[Clip, FusionShapes]:
    """The clip without what the network was not trained on, and shapes no longer than its tracks."""

    def used(modality: Modality) -> FeatureTrack:
        track: FeatureTrack = getattr(clip, modality)
        if modality in config.modalities and len(track.t_ns):
            return track
        return FeatureTrack.empty(
            getattr(config.shapes, f"{modality}_dim")
        )  # its own may be of another width

    shown = Clip(clip.id, used("vision"), used("audio"), used("text"), clip.duration_ns)
    vision_frames = max(1, min(config.shapes.vision_frames, len(shown.vision.t_ns)))
    audio_frames = max(1, min(config.shapes.audio_frames, len(shown.audio.t_ns)))
    return shown, replace(config.shapes, vision_frames=vision_frames, audio_frames=audio_frames)


def check_widths(network: FusionNetwork, clips: ClipSet) -> None:
    """Return if a frame of each modality is as wide as the network takes it; else raise TrainingError."""
    for modality in network.config.modalities:
        name = f"{modality}_dim"
        wide, here = getattr(network.config.shapes, name), getattr(clips.shapes, name)
        if modality in clips.encoders and wide != here:
            raise TrainingError(
                f"the network takes {modality} features of {wide} values, these clips have {here}; extract "
                "them again with its bundle, or choose another checkpoint"
            )
