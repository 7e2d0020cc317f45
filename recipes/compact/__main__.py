"""The packaged checkpoint, made by one command.

    python -m recipes.compact --assets DIR --out compact.safetensors --figures FOLDER

It also writes compact.onnx, with which the checkpoint runs where PyTorch is not installed. With `--figures`
the checkpoint gets its intervals, and FOLDER its figures and their page (`figures`). DIR holds
`goemotions/` (train.tsv, dev.tsv, labels.txt), `face/ferplus/` (FER+ pictures and votes),
`mediapipe/face_landmarker.task` and `voice/` (EmoDB). Embeddings and features of faces are stored in the
user's cache, and computed once.
The epoch for words is chosen on comments held out of `train`. `dev`, FER+ `valid` and four speakers of
EmoDB are only scored.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from emi_engine.onnx_export import export_beside
from emi_models import EMOTIONS
from emi_models.checkpoint import CheckpointHeader, load_checkpoint, save_checkpoint
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.prosody import ProsodyEncoder
from emi_models.encoders.sentence import SentenceEncoder
from emi_models.errors import EmiError
from emi_models.inputs import FusionInputs
from emi_models.networks import describe_config
from emi_models.networks.taemi import Taemi
from emi_models.store import ModelStore
from recipes.compact.branches import BranchRecipe
from recipes.compact.calibrate import HELD_OUT, read_recordings
from recipes.compact.faces import make_faces
from recipes.compact.ferplus import read_rated_faces
from recipes.compact.goemotions import DataError, cut_short, embed, read_split, spoken
from recipes.compact.hearing import voice_network
from recipes.compact.judges import JudgeRecipe, train_judges
from recipes.compact.readers import ReaderRecipe, train_readers
from recipes.compact.scores import (
    dev_scores,
    face_scores,
    plain_scores,
    prototype_scores,
    sentence_scores,
    voice_scores,
)
from recipes.compact.seeing import FaceMixture, at_rest, train_face
from recipes.compact.sentences import HELD_OUT as HELD_OUT_SENTENCES
from recipes.compact.sentences import MADE, OWN, PLAIN, PLAIN_HELD_OUT
from recipes.compact.sizes import SHAPES, SPANS_S
from recipes.compact.together import join
from recipes.compact.voices import make_voices
from recipes.compact.words import WORDS_RECIPE, Own, WordMixture, train_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from recipes.compact.faces import FaceWindows
    from recipes.compact.ferplus import RatedFaces
    from recipes.compact.sentences import Sentence
    from recipes.compact.voices import VoiceTakes

__all__ = ["main"]

WORDS: Final = (
    "words: GoEmotions train, filtered release (Demszky et al. 2020), 43,410 Reddit comments, rated by people"
)
OWN_WORDS: Final = ", and sentences of our own, which nobody rated"  # not in version 2's words
FACES_AND_VOICES: Final = (
    "; faces: features of 16,000 FER+ faces (Barsoum et al. 2016), rated by people, and invented ones after "
    "published prototypes, rated by nobody; voices: three linear scores fitted to six speakers of EmoDB "
    "(Burkhardt et al. 2005), two to synthesised laughter and calls (docs/models/compact.md)"
)
LICENCE: Final = "weights Apache-2.0; words learned from GoEmotions, CC BY 4.0; votes of FER+, MIT"
SENTENCES: Final = {
    "own": OWN,
    "from patterns": MADE,
    "plain": PLAIN,
    "held out": HELD_OUT_SENTENCES,
    "plain, held out": PLAIN_HELD_OUT,
}
LEARNED: Final = ("own", "from patterns", "plain")
GAINS_DB: Final = (-6.0, 0.0, 6.0)
HELD_OUT_SEED: Final = 1  # the voices were fitted to those of seed 0
SCORED: Final = 0.1  # share of extra faces and voices that are only scored; at least 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score and save as the command line says; return 0, or 2 after one line with the error."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    console = Console()
    try:
        network, scores = _Run(options, console).train()
        header = CheckpointHeader(
            system="taemi",
            config=describe_config(network.config),
            modalities=network.config.modalities,
            encoders=COMPACT_ENCODERS,
            data=WORDS + ("" if options.words else OWN_WORDS) + FACES_AND_VOICES,
            licence=LICENCE,
            scores=scores,
            created_by=f"recipes.compact, seed {options.seed}, torch {torch.__version__}",
            spans_s={str(modality): span for modality, span in SPANS_S.items()},
        )
        save_checkpoint(options.out, network, header)
        beside = export_beside(options.out)
        console.print(_table(scores))
        console.print(f"saved {options.out} and {beside}")
        if options.figures is not None:
            from recipes.compact.figures import measure

            console.print(f"figures: {measure(options.out, options.assets, options.figures)}")
    except (EmiError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.compact", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--assets", type=Path, required=True, help="folder of the data, as above")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--figures", type=Path, help="folder for figures; default: none are made")
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2; default: the model store's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--words", type=Path, nargs="+", help="checkpoints whose words are taken; default: train them"
    )
    parser.add_argument(
        "--readers", type=int, default=ReaderRecipe().readers, help="networks whose answers the words learn"
    )
    parser.add_argument("--epochs", type=int, default=ReaderRecipe().epochs, help="their epochs, at most")
    parser.add_argument(
        "--steps", type=int, default=BranchRecipe().steps, help="steps for faces; words take a third of them"
    )
    parser.add_argument("--faces", type=int, default=4000, help="synthetic clips of faces, 5 s each")
    parser.add_argument(
        "--voices", type=int, default=250, help="synthetic takes of voices to score, 4 s each"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of PyTorch; another number rounds differently"
    )
    return parser.parse_args(arguments)


class _Run:
    """One training, from the data to a scored network, with a bar of progress for each part."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)

    def train(self) -> tuple[Taemi, dict[str, float]]:
        """The trained network and its scores."""
        options, assets = self._options, self._options.assets
        learn, dev = (read_split(assets / "goemotions", split) for split in ("train", "dev"))
        with self._progress:
            views, dev_views = self._embeddings(learn.texts, dev.texts)
            said = {kind: self._sentences(kind, own) for kind, own in SENTENCES.items()}
            rated, scored = (self._rated(split) for split in ("train", "valid"))
            faces, held_faces = self._faces(options.faces, at_rest(rated))
            held_voices = self._voices(options.voices)
            targets = torch.from_numpy(learn.targets)
            face = self._face(rated, faces)
            plain = torch.from_numpy(~learn.targets.any(axis=1))
            if options.words is not None:
                words = [_taemi(path) for path in options.words]
                rest = torch.stack([network(FusionInputs.empty(SHAPES))[0] for network in words]).mean(dim=0)
            else:
                own = [Own.of(said[kind], SENTENCES[kind]) for kind in LEARNED]
                network, rest = self._words(views, targets, torch.from_numpy(learn.labels), own, plain)
                words = [network]
            recordings, emotions = self._recordings()
        network = join(words, face, voice_network(), rest.detach(), views[0][plain].mean(dim=0))
        calm = [frames for frames, emotion in zip(recordings, emotions, strict=True) if emotion == "neutral"]
        scores = dev_scores(network, dev_views, dev.targets, at_rest(scored), calm)
        scores |= face_scores(network, scored) | voice_scores(network, recordings, emotions)
        scores |= sentence_scores(network, said["held out"], HELD_OUT_SENTENCES)
        neutral = torch.from_numpy(~dev.targets.any(axis=1))
        scores |= plain_scores(network, dev_views["written"][neutral], said["plain, held out"])
        return network, scores | prototype_scores(network, held_faces, held_voices)

    def _words(
        self, views: Sequence[Tensor], targets: Tensor, labels: Tensor, own: Sequence[Own], plain: Tensor
    ) -> tuple[Taemi, Tensor]:
        """The network for words, and rest (6,); `plain` says which comments show none of the six, (N,)."""
        options = self._options
        reader = ReaderRecipe(seed=options.seed, readers=options.readers, epochs=options.epochs)
        reader = replace(reader, held_out=min(reader.held_out, len(targets) // 10))
        report = self._bar("readers", reader.readers * reader.epochs, "held-out mean Pearson {:.4f}")
        readers = train_readers(views, targets, labels, reader, report)
        recipe = replace(WORDS_RECIPE, seed=options.seed, steps=max(1, options.steps // 3))
        report = self._bar("words", recipe.steps, "error {:.5f}")
        rest = readers(views[0][plain]).mean(dim=0)
        return train_words(WordMixture(views, readers, own, rest), recipe, report), rest

    def _face(self, rated: RatedFaces, faces: FaceWindows) -> Taemi:
        options = self._options
        judge = JudgeRecipe(seed=options.seed, steps=max(1, options.steps // 3))
        report = self._bar("judges of faces", judge.judges * judge.steps, "error {:.3f}")
        judges = train_judges(rated, judge, report)
        recipe = BranchRecipe(seed=options.seed, steps=options.steps)
        report = self._bar("faces", recipe.steps, "error {:.5f}")
        return train_face(FaceMixture(rated, judges, faces), recipe, report)

    def _sentences(self, kind: str, sentences: Sequence[Sentence]) -> Tensor:
        """Embeddings of our own sentences."""
        task = self._progress.add_task(f"embed own sentences, {kind}", total=len(sentences))
        texts = [sentence.text for sentence in sentences]
        encoder = partial(_encoder, self._options.minilm)
        return torch.from_numpy(embed(texts, encoder, partial(self._progress.advance, task)))

    def _rated(self, split: str) -> RatedFaces:
        assets = self._options.assets
        task = self._progress.add_task(f"read rated faces, {split}", total=None)
        advance = partial(self._progress.advance, task)
        model = assets / "mediapipe" / "face_landmarker.task"
        return read_rated_faces(assets / "face" / "ferplus", split, model, advance)

    def _recordings(self) -> tuple[list[NDArray[np.float32]], NDArray[np.str_]]:
        """Frames of the recordings that are only scored, 6 dB softer, as they are, and 6 dB louder."""
        encoder, frames, emotions = ProsodyEncoder(), [], []
        for recording in read_recordings(self._options.assets / "voice", HELD_OUT):
            for gain_db in GAINS_DB:
                encoder.reset()
                sound = np.clip(recording.sound * 10 ** (gain_db / 20), -1, 1).astype(np.float32)
                frames.append(encoder.push(sound))
                emotions.append(recording.emotion)
        return frames, np.array(emotions)

    def _embeddings(self, learn: Sequence[str], dev: Sequence[str]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Three variants of each comment of `train`, two of `dev`."""
        choice = random.Random(0)  # noqa: S311  # names and cuts: part of the data, the same for every seed
        said = [spoken(text, choice) for text in learn]
        guises = {
            "as written": learn,
            "as spoken": said,
            "cut short": [cut_short(text, choice) for text in said],
            "dev, as written": dev,
            "dev, as spoken": [spoken(text, choice) for text in dev],
        }
        vectors = {}
        for name, texts in guises.items():
            task = self._progress.add_task(f"embed {name}", total=len(texts))
            encoder = partial(_encoder, self._options.minilm)
            vectors[name] = torch.from_numpy(embed(texts, encoder, partial(self._progress.advance, task)))
        views = [vectors[name] for name in ("as written", "as spoken", "cut short")]
        return views, {"written": vectors["dev, as written"], "spoken": vectors["dev, as spoken"]}

    def _faces(self, clips: int, people: NDArray[np.float32]) -> tuple[FaceWindows, FaceWindows]:
        """Those to learn from, and others to score."""
        held, seed = max(20, round(clips * SCORED)), 2 * self._options.seed
        task = self._progress.add_task("invent faces", total=clips + held)
        make = partial(
            make_faces, frames=SHAPES.vision_frames, span_s=SPANS_S["vision"],
            advance=partial(self._progress.advance, task), people=people,
        )  # fmt: skip
        return make(clips, seed=seed), make(held, seed=seed + 1)

    def _voices(self, takes: int) -> VoiceTakes:
        """Synthesised voices to score."""
        task = self._progress.add_task("invent voices", total=takes)
        return make_voices(takes, HELD_OUT_SEED, partial(self._progress.advance, task))

    def _bar(self, name: str, total: int, measure: str) -> Callable[[int, float], None]:
        """A bar; the result moves it, with a value to show next to its name."""
        task = self._progress.add_task(name, total=total)

        def report(done: int, value: float) -> None:
            self._progress.update(task, completed=done, description=f"{name}: {measure.format(value)}")

        return report


def _taemi(path: Path) -> Taemi:
    """The network of a TAEMI checkpoint."""
    network = load_checkpoint(path).network
    if not isinstance(network, Taemi):
        raise DataError(f"{path} is not a TAEMI; give a `compact` checkpoint")
    return network.eval()


def _encoder(folder: Path | None) -> SentenceEncoder:
    return SentenceEncoder(folder or ModelStore().locate("all-minilm-l6-v2"))


def _table(scores: Mapping[str, float]) -> Group:
    """Pearson's correlations, a column each of what was scored."""
    kinds = [name.removesuffix("_pearson_mean") for name in scores if name.endswith("_pearson_mean")]
    table = Table("Pearson", *(kind.replace("_", " ") for kind in kinds))
    for row in (*EMOTIONS, "mean"):
        found = [scores.get(f"{kind}_pearson_{row}") for kind in kinds]
        table.add_row(row, *("" if value is None else f"{value:.4f}" for value in found))
    others = Table("other scores", "")
    for name, value in scores.items():
        if "_pearson_" not in name:
            others.add_row(name, f"{value:.4f}")
    return Group(table, others)


if __name__ == "__main__":
    sys.exit(main())
