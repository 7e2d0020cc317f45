"""The packaged checkpoint, made by one command.

    python -m recipes.compact --assets DIR --out compact.safetensors --figures docs/benchmarks

It also writes compact.onnx, with which the checkpoint runs where PyTorch is not installed. With `--figures`
the checkpoint gets its intervals, FOLDER all that was measured (`figures`), and the tables of the docs are
written from it (`pages`). The same for a checkpoint that exists, which is not changed:

    python -m recipes.compact --assets DIR --checkpoint compact.safetensors --figures FOLDER

DIR holds `goemotions/` (train.tsv, dev.tsv, labels.txt), `face/ferplus/` (FER+ pictures and votes),
`mediapipe/face_landmarker.task`, `voice/` (EmoDB), and for figures a clip of a smile and read speech
(`conduct`). Embeddings and features of faces are stored in the user's cache, and computed once.
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
from recipes.compact.scores import Acted, HeldOut, all_scores
from recipes.compact.seeing import FaceMixture, at_rest, train_face
from recipes.compact.sentences import HELD_OUT as HELD_OUT_SENTENCES
from recipes.compact.sentences import MADE, OWN, PLAIN
from recipes.compact.sizes import SHAPES, SPANS_S
from recipes.compact.together import join
from recipes.compact.voices import make_voices
from recipes.compact.words import WORDS_RECIPE, Own, WordMixture, train_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models import Modality
    from recipes.compact.faces import FaceWindows
    from recipes.compact.ferplus import RatedFaces
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
SENTENCES: Final = {"own": OWN, "from patterns": MADE, "plain": PLAIN}
WAYS: Final = ("as written", "as spoken", "cut short")
DEV_WAYS: Final = ("dev, as written", "dev, as spoken")
# What a modality adds to an emotion counts so many times (docs/decisions/0036): words, so that neutral faces
# and voices disturb them less, and sad faces, which are the weakest display: with 1.08, half of 1,000 faces
# like a weeping one, each blendshape up to 30 % more or less, showed less than .2; with 1.5 none does.
COUNTS: Final[Mapping[tuple[Modality, str], float]] = {
    ("text", "joy"): 1.2,
    ("text", "empathic_pain"): 1.25,
    ("text", "excitement"): 1.1,
    ("vision", "empathic_pain"): 1.5,
}
GAINS_DB: Final = (-6.0, 0.0, 6.0)
HELD_OUT_SEED: Final = 1  # the voices were fitted to those of seed 0
SCORED: Final = 0.1  # share of extra faces and voices that are only scored; at least 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score and save as the command line says; return 0, or 2 after one line with the error."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    console = Console()
    try:
        run = _Run(options, console)
        if options.checkpoint is not None:
            checkpoint, network = options.checkpoint, _taemi(options.checkpoint)
            held = run.held_out()
            scores = all_scores(network, held)
            console.print(_table(scores))
        else:
            checkpoint, network = options.out, run.train()
            held = run.held_out()
            scores = all_scores(network, held)
            _save(checkpoint, network, scores, options, console)
        if options.figures is not None:
            from recipes.compact.conduct import conduct
            from recipes.compact.figures import measure

            with console.status("steps, pairs, onsets of voices"):
                scores |= conduct(network, held, options.assets, run.embed)
            keep = options.checkpoint is None
            pages = measure(checkpoint, scores, options.assets, options.figures, keep_intervals=keep)
            console.print("written: " + ", ".join(map(str, pages)))
    except (EmiError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    return 0


def _save(
    path: Path, network: Taemi, scores: Mapping[str, float], options: argparse.Namespace, console: Console
) -> None:
    """Write the checkpoint and its ONNX export, and print its scores."""
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
    save_checkpoint(path, network, header)
    beside = export_beside(path)
    console.print(_table(scores))
    console.print(f"saved {path} and {beside}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.compact", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--assets", type=Path, required=True, help="folder of the data, as above")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--out", type=Path, help="checkpoint to write")
    goal.add_argument("--checkpoint", type=Path, help="checkpoint to score; nothing is trained")
    parser.add_argument(
        "--figures", type=Path, help="folder for what is measured; with docs/benchmarks, the docs follow"
    )
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
    """The parts of one run, with a bar of progress for each."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)

    def train(self) -> Taemi:
        """The trained network."""
        options = self._options
        learn = read_split(options.assets / "goemotions", "train")
        with self._progress:
            views = self._embeddings(WAYS)
            said = {k: self.embed([each.text for each in own], f"own {k}") for k, own in SENTENCES.items()}
            rated = self._rated("train")
            faces = self._faces(options.faces, at_rest(rated), 0)
            targets = torch.from_numpy(learn.targets)
            face = self._face(rated, faces)
            plain = torch.from_numpy(~learn.targets.any(axis=1))
            if options.words is not None:
                words = [_taemi(path) for path in options.words]
                rest = torch.stack([network(FusionInputs.empty(SHAPES))[0] for network in words]).mean(dim=0)
            else:
                own = [Own.of(said[kind], SENTENCES[kind]) for kind in SENTENCES]
                network, rest = self._words(views, targets, torch.from_numpy(learn.labels), own, plain)
                words = [network]
        counts = {key: times for key, times in COUNTS.items() if options.words is None or key[0] != "text"}
        return join(words, face, voice_network(), rest.detach(), views[0][plain].mean(dim=0), counts)

    def held_out(self) -> HeldOut:
        """What a network is scored on, and did not learn from."""
        options = self._options
        with self._progress:
            written, spoken_ = self._embeddings(DEV_WAYS)
            faces, people = self._rated("valid"), at_rest(self._rated("train"))
            return HeldOut(
                texts={"written": written, "spoken": spoken_},
                targets=read_split(options.assets / "goemotions", "dev").targets,
                sentences=self.embed([each.text for each in HELD_OUT_SENTENCES], "held-out sentences"),
                faces=faces,
                acted=self._acted(),
                invented_faces=self._faces(max(20, round(options.faces * SCORED)), people, 1),
                invented_voices=self._voices(options.voices),
            )

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

    def embed(self, texts: Sequence[str], name: str = "sentences") -> Tensor:
        """Embeddings of texts, (N, 384)."""
        task = self._progress.add_task(f"embed {name}", total=len(texts))
        encoder = partial(_encoder, self._options.minilm)
        return torch.from_numpy(embed(texts, encoder, partial(self._progress.advance, task)))

    def _rated(self, split: str) -> RatedFaces:
        assets = self._options.assets
        task = self._progress.add_task(f"read rated faces, {split}", total=None)
        advance = partial(self._progress.advance, task)
        model = assets / "mediapipe" / "face_landmarker.task"
        return read_rated_faces(assets / "face" / "ferplus", split, model, advance)

    def _acted(self) -> Acted:
        """The recordings that are only scored, 6 dB softer, as they are, and 6 dB louder."""
        encoder, frames, about = ProsodyEncoder(), [], []
        for number, recording in enumerate(read_recordings(self._options.assets / "voice", HELD_OUT)):
            for gain_db in GAINS_DB:
                encoder.reset()
                sound = np.clip(recording.sound * 10 ** (gain_db / 20), -1, 1).astype(np.float32)
                frames.append(encoder.push(sound))
                about.append((recording.emotion, recording.speaker, number))
        emotions, speakers, numbers = (np.array(each) for each in zip(*about, strict=True))
        return Acted(frames=frames, emotions=emotions, speakers=speakers, numbers=numbers)

    def _embeddings(self, ways: Sequence[str]) -> list[Tensor]:
        """Embeddings (N, 384) of the comments of `train` or `dev` in these ways."""
        learn, dev = (read_split(self._options.assets / "goemotions", s).texts for s in ("train", "dev"))
        choice = random.Random(0)  # noqa: S311  # names and cuts: part of the data, the same for every seed
        said = [spoken(text, choice) for text in learn]
        guises = {
            "as written": learn,
            "as spoken": said,
            "cut short": [cut_short(text, choice) for text in said],
            "dev, as written": dev,
            "dev, as spoken": [spoken(text, choice) for text in dev],
        }
        return [self.embed(guises[name], name) for name in ways]

    def _faces(self, clips: int, people: NDArray[np.float32], seed: int) -> FaceWindows:
        """Invented faces: of seed 0 to learn from, of seed 1 to score."""
        task = self._progress.add_task("invent faces", total=clips)
        return make_faces(
            clips, frames=SHAPES.vision_frames, span_s=SPANS_S["vision"], seed=2 * self._options.seed + seed,
            advance=partial(self._progress.advance, task), people=people,
        )  # fmt: skip

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
