"""A synthetic corpus on disk, in the layout of Hume-Vidmimic2, with its truth beside it.

::

    DIR/train_split.csv, valid_split.csv    ids of five digits and ratings
    DIR/vit/00000.pkl, wav2vec2/00000.pkl   (T, D) arrays; no file where the stream is missing
    DIR/gte/00000.pkl                       (D,) array; no file where there are no words
    DIR/text/00000.txt                      the words, to be read by people; empty where there are none
    DIR/dataset.json                        frame rates and what the features are, for the reader
    DIR/truth.json                          the settings, and what each clip was made of
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import asdict
from pickle import dumps  # noqa: TID251  # writing runs nothing, and the layout's loaders want pickles
from typing import TYPE_CHECKING, Final

from emi_models.data.synth_config import SynthError
from emi_models.data.synth_words import spoken_words
from emi_models.data.vidmimic import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emi_models.data.synth import SynthCorpus, Truth

__all__ = ["HEADER", "NOTICE", "expected_bytes", "write_corpus"]

HEADER: Final = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
NOTICE: Final = "synthetic: made by `emi synth`, nobody is in it; scores on it say nothing about people"
FOLDERS: Final = {"vision": "vit", "audio": "wav2vec2", "text": "gte"}
WORDS, DATASET, TRUTH = "text", "dataset.json", "truth.json"
PICKLE_PROTOCOL: Final = 4  # the newest that every Python in use reads
MEAN_LENGTH_S: Final = 6.93
OVERHEAD_BYTES: Final = 1100  # per clip: pickles' headers, words, ratings, truth


def expected_bytes(corpus: SynthCorpus) -> int:
    """About how many bytes the corpus' files have together."""
    sizes = corpus.config.sizes
    per_s = sizes.vision_hz * sizes.vision_dim + sizes.audio_hz * sizes.audio_dim
    return round(corpus.config.clips * (4 * (MEAN_LENGTH_S * per_s + sizes.text_dim) + OVERHEAD_BYTES))


def write_corpus(
    corpus: SynthCorpus, folder: Path, report: Callable[[int], None], *, replace: bool = False
) -> int:
    """Write all clips below `folder`, which is made if need be; how many bytes that were.

    Args:
        corpus: the clips.
        folder: where to.
        report: told how many clips are done, after each.
        replace: remove the synthetic corpus that is there.

    Raises:
        SynthError: the folder is not empty and is not to be, or must not be, replaced; there is not enough
            room; or a file cannot be written.
    """
    needed = expected_bytes(corpus)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            _make_way(folder, replace=replace)
        if (free := shutil.disk_usage(folder).free) < needed:
            raise SynthError(
                f"{folder} has {free / 1e9:.1f} GB free, the corpus takes about {needed / 1e9:.1f} GB; "
                "make fewer clips, or name a folder on another disk"
            )
        return _write(corpus, folder, report)
    except OSError as error:
        raise SynthError(f"{folder} cannot be written: {error.strerror}; name another folder") from error


def _make_way(folder: Path, *, replace: bool) -> None:
    """Remove an earlier corpus, with what readers have made of it; never anything that was not made here."""
    truth = folder / TRUTH
    if not truth.is_file() or NOTICE not in truth.read_text(encoding="utf-8"):
        raise SynthError(f"{folder} is not empty and holds no synthetic corpus; name another folder")
    if not replace:
        raise SynthError(
            f"{folder} holds a synthetic corpus; name another folder, or replace it with --force"
        )
    for name in (*FOLDERS.values(), WORDS, CACHE):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("train_split.csv", "valid_split.csv", DATASET, TRUTH):
        (folder / name).unlink(missing_ok=True)


def _write(corpus: SynthCorpus, folder: Path, report: Callable[[int], None]) -> int:
    for name in (*FOLDERS.values(), WORDS):
        (folder / name).mkdir(exist_ok=True)
    story = {"notice": NOTICE, "settings": asdict(corpus.config)}
    # First of all, so that a corpus that was interrupted can be told for one, and be replaced.
    (folder / TRUTH).write_text(json.dumps(story) + "\n", encoding="utf-8")
    written = 0
    truths: dict[str, object] = {}
    for clip_id in sorted(corpus.ids("train") + corpus.ids("valid")):
        clip, truth = corpus.load(clip_id), corpus.truth(clip_id)
        arrays = {"vision": clip.vision.values, "audio": clip.audio.values, "text": clip.text.values}
        for modality, values in arrays.items():
            path = folder / FOLDERS[modality] / f"{clip_id}.pkl"
            if len(values):
                array = values[0] if modality == "text" else values
                written += path.write_bytes(dumps(array, PICKLE_PROTOCOL))
        words = spoken_words(truth.topic, truth.intensities) if len(clip.text.values) else ""
        written += (folder / WORDS / f"{clip_id}.txt").write_text(words, encoding="utf-8")
        truths[clip_id] = _described(truth)
        report(len(truths))
    for split in ("train", "valid"):
        written += (folder / f"{split}_split.csv").write_text(_ratings(corpus, split), encoding="utf-8")
    for name, content in ((DATASET, _dataset(corpus)), (TRUTH, story | {"clips": truths})):
        written += (folder / name).write_text(json.dumps(content) + "\n", encoding="utf-8")
    return written


def _ratings(corpus: SynthCorpus, split: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER.split(","))
    for clip_id, row in zip(corpus.ids(split), corpus.targets(split).tolist(), strict=True):
        writer.writerow([clip_id, *(f"{value:.4g}" for value in row)])
    return text.getvalue()


def _dataset(corpus: SynthCorpus) -> dict[str, object]:
    return {
        "notice": NOTICE,
        "vision_hz": corpus.config.sizes.vision_hz,
        "audio_hz": corpus.config.sizes.audio_hz,
        "features": FOLDERS,
        "encoders": dict(corpus.encoders),
        "description": corpus.description,
        "licence": corpus.licence,
    }


def _described(truth: Truth) -> dict[str, object]:
    """A clip's truth as JSON: times in seconds, and for each moment [start, end, topic, salient]."""
    return {
        "intensities": [round(value, 4) for value in truth.intensities.tolist()],
        "topic": truth.topic,
        "person": truth.person,
        "moments": [[round(m.start_s, 3), round(m.end_s, 3), m.topic, int(m.salient)] for m in truth.moments],
    }
