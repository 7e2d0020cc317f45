"""How good a network is on clips: by emotion, by seconds heard, and by what it is shown.

A clip is shown as live use shows it: as it ends, or at 12 s if it is longer; and at each prefix. No score
hangs on how clips were batched: a prediction depends on its own clip alone, and scores are computed over all
at once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from emi_models.checkpoint import load_checkpoint
from emi_models.data.batches import collate
from emi_models.data.clip import WINDOW_S, Clip, Track
from emi_models.inputs import FusionInputs
from emi_models.training.clips import LEAST_CLIPS, check_task, rated_clips, rated_part
from emi_models.training.config import DataSettings
from emi_models.training.errors import TrainingError
from emi_models.training.machine import choose_device
from emi_models.training.published import published_for
from emi_models.training.scores import Evaluation, PrefixScores, Scores
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from emi_models.checkpoint import CheckpointHeader
    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionShapes
    from emi_models.networks.base import FusionConfig, FusionNetwork
    from emi_models.vocabulary import Modality

__all__ = ["PREFIXES_S", "check_fit", "evaluate", "evaluate_checkpoint", "predict"]

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

    A set without a valid split gets the one that training held out, as the checkpoint's notes say, or as a
    training with no settings would draw it.

    Raises:
        CheckpointError: the file is no checkpoint that can be used.
        TrainingError: the clips are not of its features, or too few of the split are rated.
    """
    loaded = load_checkpoint(path)
    header = loaded.header
    check_fit(header, loaded.network, clips)
    where = split
    if split == "valid" and not clips.ids("valid"):
        usual = DataSettings()
        share = float(header.notes.get("held_out", usual.held_out))
        clips = rated_clips(clips, share, int(header.notes.get("held_out_seed", usual.held_out_seed)))
        where = f"valid: {clips.validation}"
    return evaluate(
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


def check_fit(header: CheckpointHeader, network: FusionNetwork, clips: ClipSet) -> None:
    """Return if the encoders that made these clips' features are those that the network was trained on.

    Raises:
        TrainingError: they are others; the message names both.
    """
    for modality in network.config.modalities:
        trained, given = header.encoders[modality], clips.encoders.get(modality)
        if given is not None and given != trained:
            raise TrainingError(
                f"the checkpoint was trained on {modality} features of {trained}, these clips have those of "
                f"{given}; extract the clips anew with its bundle, or choose another checkpoint"
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
    _check_widths(network, clips)
    ids, targets = rated_part(clips, split)
    if len(ids) < LEAST_CLIPS:
        others = {name: len(clips.ids(name)) for name in ("train", "valid", "test")}
        raise TrainingError(
            f"{len(ids)} rated clips in {split}, at least {LEAST_CLIPS} are needed; the set has "
            + ", ".join(f"{count} clips in {name}" for name, count in others.items())
        )
    check_task(network.config.task, targets)
    views = _views(network.config.modalities)
    found: dict[object, list[Tensor]] = defaultdict(list)
    if network.config.task == "bah":
        prefixes = ()  # a chunk of BAH has a moment in its middle, and no course
    cut = dict.fromkeys(prefixes, 0)
    network.eval().to(chosen)
    try:
        for start in range(0, len(ids), batch_size):
            batch = [clips.load(clip_id) for clip_id in ids[start : start + batch_size]]
            whole = _windows(network, batch, WINDOW_S, spans_s)
            for name, gone in views.items():
                found[name].append(predict(network, whole.without(*gone)))
            for seconds in prefixes:
                found[seconds].append(predict(network, _windows(network, batch, seconds, spans_s)))
                cut[seconds] += sum(clip.duration_ns > seconds * NS_PER_S for clip in batch)
            if advance is not None:
                advance(len(batch))
    finally:
        network.cpu()
    truth, task = torch.from_numpy(targets), network.config.task
    scores = {key: Scores.of(torch.cat(parts), truth, task) for key, parts in found.items()}
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
        published=published_for(clips.description) if task == "emi" else (),
    )


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


def _windows(
    network: FusionNetwork, batch: Sequence[Clip], seconds: float, spans_s: Mapping[Modality, float] | None
) -> FusionInputs:
    """The clips as they are `seconds` after their start, or at their end if that comes first."""
    rows = []
    for clip in batch:
        end_ns = min(clip.duration_ns, round(seconds * NS_PER_S))
        used, shapes = _shown(clip, network.config)
        rows.append((used.window(shapes, end_ns, spans_s), torch.zeros(1)))
    return collate(rows)[0]


def _shown(clip: Clip, config: FusionConfig) -> tuple[Clip, FusionShapes]:
    """The clip without what the network was not trained on, and shapes no longer than its tracks."""

    def used(modality: Modality) -> Track:
        track: Track = getattr(clip, modality)
        if modality in config.modalities and len(track.t_ns):
            return track
        return Track.empty(getattr(config.shapes, f"{modality}_dim"))  # its own may be of another width

    shown = Clip(clip.id, used("vision"), used("audio"), used("text"), clip.duration_ns)
    vision_frames = max(1, min(config.shapes.vision_frames, len(shown.vision.t_ns)))
    audio_frames = max(1, min(config.shapes.audio_frames, len(shown.audio.t_ns)))
    return shown, replace(config.shapes, vision_frames=vision_frames, audio_frames=audio_frames)


def _check_widths(network: FusionNetwork, clips: ClipSet) -> None:
    for modality in network.config.modalities:
        name = f"{modality}_dim"
        wide, here = getattr(network.config.shapes, name), getattr(clips.shapes, name)
        if modality in clips.encoders and wide != here:
            raise TrainingError(
                f"the network takes {modality} features of {wide} values, these clips have {here}; extract "
                "them anew with its bundle, or choose another checkpoint"
            )
