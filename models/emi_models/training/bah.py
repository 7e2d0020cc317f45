"""Predictions on BAH for files, and tables 4 to 6 of "Semantic Matters".

No format for predictions is published that could be read here: the files have a header, and a line for each
frame or video.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from emi_models.checkpoint import load_checkpoint
from emi_models.data.batches import check_task
from emi_models.data.clip import WINDOW_S
from emi_models.device import choose_device
from emi_models.errors import EmiError, TrainingError
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import (
    Scores,
    check_fit,
    evaluate_checkpoint,
    predict,
    shown_windows,
    video_logits,
)
from emi_models.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console
    from torch import Tensor

    from emi_models import Modality
    from emi_models.data.clip import ClipSet

__all__ = [
    "BAH_TABLES",
    "BahPredictions",
    "BahRow",
    "MadeRow",
    "find_bah_table",
    "make_bah_table",
    "predict_bah",
]

SYSTEM: Final = "semantic_matters"


@dataclass(frozen=True, slots=True, eq=False)
class BahPredictions:
    """Logits (N, 1) of the frames `ids`, `<video>#<frame>`: the mean of the networks'."""

    ids: tuple[str, ...]
    logits: Tensor
    truth: Tensor  # (N, 1), NaN where nobody says

    @property
    def scores(self) -> Scores | None:
        """Over the labelled frames; None with fewer than two."""
        rated = self.truth.isfinite().flatten()
        return Scores.of(self.logits[rated], self.truth[rated], "bah") if int(rated.sum()) > 1 else None

    def csv(self, level: str = "frame") -> str:
        """A table with a header: `video,frame,probability,ambivalence`, or without `frame` for videos.

        `ambivalence` is 1 where the probability is above a half.

        Raises:
            TrainingError: `level` is neither `frame` nor `video`.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if level == "frame":
            writer.writerow(["video", "frame", "probability", "ambivalence"])
            for clip_id, share in zip(self.ids, self.logits.flatten().sigmoid().tolist(), strict=True):
                video, _, frame = clip_id.rpartition("#")
                writer.writerow([video, frame, f"{share:.6f}", int(share > 0.5)])
        elif level == "video":
            writer.writerow(["video", "probability", "ambivalence"])
            for video, logit in video_logits(self.ids, self.logits).items():
                share = float(logit.sigmoid())
                writer.writerow([video, f"{share:.6f}", int(share > 0.5)])
        else:
            raise TrainingError(f"no level is called {level!r}; choose frame or video")
        return text.getvalue()


def predict_bah(
    checkpoints: Sequence[Path],
    clips: ClipSet,
    split: str = "test",
    *,
    batch_size: int = 32,
    device: str = "cpu",
    advance: Callable[[int], None] | None = None,
) -> BahPredictions:
    """What the networks of one or several checkpoints say of each frame of a split, labelled or not.

    Raises:
        CheckpointError: a file is no checkpoint that can be used.
        TrainingError: the clips are not of its features or its task, or the split is empty.
    """
    ids = clips.ids(split)
    if not ids:
        raise TrainingError(f"there is no frame in {split}; name another split")
    chosen, total = choose_device(device), torch.zeros(len(ids), 1)
    for number, path in enumerate(checkpoints):
        loaded = load_checkpoint(path)
        check_fit(loaded.header, loaded.network, clips)
        check_task(loaded.network.config, clips)
        network = loaded.network.to(chosen)
        for start in range(0, len(ids), batch_size):
            batch = [clips.load(clip_id) for clip_id in ids[start : start + batch_size]]
            window = shown_windows(network, batch, WINDOW_S, None)
            total[start : start + len(batch)] += predict(network, window).float() / len(checkpoints)
            if advance is not None and number == 0:
                advance(len(batch))
    return BahPredictions(ids, total, torch.from_numpy(clips.targets(split)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BahRow:
    """One row of a table: the paper's weighted F1, and what is trained for it."""

    name: str
    valid: float | None
    test: float | None = None
    modalities: tuple[Modality, ...] = ("text",)
    text_encoder: str = ""  # "": the user's own
    text_s: float = 20.0
    why: str = ""  # it cannot be made


_ALL: Final[tuple[Modality, ...]] = ("vision", "audio", "text")
_OTHERS: Final = "another team's system"
_TRAINED_ON_BOTH: Final = "trained on valid too, which then cannot score it"
BAH_TABLES: Final[Mapping[int, tuple[BahRow, ...]]] = {
    4: (
        BahRow(name="baseline", valid=None, test=0.700, why=_OTHERS),
        BahRow(name="Savchenko", valid=0.737, test=0.710, why=_OTHERS),
        BahRow(name="vision", valid=0.674, modalities=("vision",)),
        BahRow(name="audio", valid=0.662, modalities=("audio",)),
        BahRow(name="text", valid=0.718),
        BahRow(name="audio+vision", valid=0.662, modalities=("vision", "audio")),
        BahRow(name="text+audio", valid=0.696, modalities=("audio", "text")),
        BahRow(name="text+vision", valid=0.725, test=0.694, modalities=("vision", "text")),
        BahRow(name="text+audio+vision", valid=0.720, test=0.702, modalities=_ALL),
        BahRow(name="text+vision, train and valid", valid=None, test=0.693, why=_TRAINED_ON_BOTH),
    ),
    5: (
        BahRow(name="BERT-Base", valid=0.701, text_encoder="bert-base"),
        BahRow(name="BERT-Large", valid=0.706, text_encoder="bert-large"),
        BahRow(name="RoBERTa-Base", valid=0.692, text_encoder="roberta-base"),
        BahRow(name="GTE-Base", valid=0.705, text_encoder="gte-base"),
        BahRow(name="GTE-Large", valid=0.718, text_encoder="gte-large"),
    ),
    6: (
        BahRow(name="5 seconds", valid=0.703, text_s=5.0),
        BahRow(name="15 seconds", valid=0.712, text_s=15.0),
        BahRow(name="20 seconds", valid=0.718, text_s=20.0),
        BahRow(name="25 seconds", valid=0.717, text_s=25.0),
        BahRow(name="35 seconds", valid=0.716, text_s=35.0),
    ),
}


def find_bah_table(number: int) -> tuple[BahRow, ...]:
    """The rows of one of the paper's tables on BAH.

    Raises:
        TrainingError: there is no such table.
    """
    if number not in BAH_TABLES:
        raise TrainingError(f"{SYSTEM} has no table {number} on BAH; there are: 4, 5, 6")
    return BAH_TABLES[number]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRow:
    """A row with the user's own weighted F1, on test if that is labelled; or why there is none."""

    row: BahRow
    valid: float | None = None
    test: float | None = None
    why: str = ""
    videos_macro_f1: float | None = None  # on valid


def make_bah_table(
    number: int,
    open_clips: Callable[[BahRow], ClipSet],
    out: Path,
    config: TrainConfig | None = None,
    *,
    rows: Sequence[str] = (),
    console: Console | None = None,
) -> tuple[MadeRow, ...]:
    """Each row of a table, trained and scored on the user's data; rows that cannot be made say why.

    What is there already is not trained again, and an interrupted training goes on.

    Args:
        number: 4 (modalities), 5 (text encoders) or 6 (seconds of text).
        open_clips: the clips of a row, with its seconds of text and its text encoder; it raises an `EmiError`
            where the user has no such encoder.
        out: a folder; each row has its run below it.
        config: what differs from the recipe, for all rows.
        rows: only those of these names; empty = all.
        console: where progress is shown.

    Raises:
        TrainingError: there is no such table.
    """
    made = []
    for row in find_bah_table(number):
        if rows and row.name not in rows:
            continue
        if row.why:
            made.append(MadeRow(row=row, why=row.why))
            continue
        try:
            made.append(_made(row, open_clips(row), out, config or TrainConfig(), console))
        except EmiError as error:
            made.append(MadeRow(row=row, why=str(error)))
    return tuple(made)


def _made(row: BahRow, clips: ClipSet, out: Path, config: TrainConfig, console: Console | None) -> MadeRow:
    network = {**config.network, "modalities": list(row.modalities), "task": "bah"}
    settings = config.model_copy(update={"network": network})
    parts = (*row.modalities, f"{row.text_s:g}s", *([row.text_encoder] if row.text_encoder else ()))
    name = "-".join(parts)
    checkpoint = out / name / "checkpoint.safetensors"
    if not checkpoint.is_file():
        checkpoint = fit(SYSTEM, clips, out / name, settings, resume=True, console=console).checkpoint
    valid = evaluate_checkpoint(checkpoint, clips)
    test = None
    if clips.ids("test") and torch.from_numpy(clips.targets("test")).isfinite().any():
        test = evaluate_checkpoint(checkpoint, clips, "test").whole.weighted_f1
    return MadeRow(
        row=row,
        valid=valid.whole.weighted_f1,
        test=test,
        videos_macro_f1=None if valid.videos is None else valid.videos.macro_f1,
    )
