"""The packaged checkpoint, made by one command.

    python -m recipes.compact --data DIR --out compact.safetensors

It also writes compact.onnx, with which the checkpoint runs where PyTorch is not installed.
DIR holds GoEmotions' train.tsv, dev.tsv and labels.txt. Runs on one core of a CPU: minutes for the
embeddings, which are stored in the user's cache, minutes for the synthetic voices, minutes for the network.
The epoch for words is chosen on comments held out of `train`; `dev` is only scored.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from emi_engine.onnx_export import export_beside
from emi_models import EMOTIONS
from emi_models.checkpoint import CheckpointHeader, save_checkpoint
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.sentence import SentenceEncoder
from emi_models.errors import EmiError
from emi_models.networks import describe_config
from emi_models.store import ModelStore
from recipes.compact.faces import make_faces
from recipes.compact.goemotions import cut_short, embed, read_split, spoken
from recipes.compact.scores import dev_scores, prototype_scores
from recipes.compact.sizes import SHAPES, SPANS_S
from recipes.compact.together import Mixture, TogetherRecipe, train_together
from recipes.compact.voices import make_voices
from recipes.compact.words import WordsRecipe, predict, train_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from emi_models.networks.taemi import Taemi
    from recipes.compact.faces import FaceWindows
    from recipes.compact.voices import VoiceTakes

__all__ = ["main"]

DATA: Final = (
    "words: GoEmotions train, filtered release (Demszky et al. 2020), 43,410 Reddit comments, rated by "
    "people; faces and voices: invented after published prototypes, rated by nobody (docs/models/compact.md)"
)
LICENCE: Final = "weights Apache-2.0; words learned from GoEmotions, CC BY 4.0"
HELD_OUT: Final = 0.1  # share of extra faces and voices that are only scored; at least 20


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
            data=DATA,
            licence=LICENCE,
            scores=scores,
            created_by=f"recipes.compact, seed {options.seed}, torch {torch.__version__}",
            spans_s={str(modality): span for modality, span in SPANS_S.items()},
        )
        save_checkpoint(options.out, network, header)
        beside = export_beside(options.out)
    except (EmiError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    console.print(_table(scores))
    console.print(f"saved {options.out} and {beside}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.compact", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="folder of GoEmotions' files")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2; default: the model store's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--epochs", type=int, default=WordsRecipe().epochs, help="epochs for the words, at most"
    )
    parser.add_argument(
        "--steps", type=int, default=TogetherRecipe().steps, help="steps for all three modalities together"
    )
    parser.add_argument("--faces", type=int, default=20_000, help="synthetic clips of faces, 5 s each")
    parser.add_argument("--voices", type=int, default=5000, help="synthetic takes of voices, 4 s each")
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
        options = self._options
        learn, dev = read_split(options.data, "train"), read_split(options.data, "dev")
        with self._progress:
            views, dev_views = self._embeddings(learn.texts, dev.texts)
            recipe = WordsRecipe(seed=options.seed, epochs=options.epochs)
            recipe = replace(recipe, held_out=min(recipe.held_out, len(learn.texts) // 10))
            report = self._bar("words", recipe.epochs, "held-out mean Pearson {:.4f}")
            targets = torch.from_numpy(learn.targets)
            words = train_words(views, targets, recipe, lambda epoch, score: report(epoch + 1, score))
            faces, held_faces = self._faces(options.faces)
            voices, held_voices = self._voices(options.voices)
            mixture = Mixture(
                words=views,
                words_show=[torch.from_numpy(predict(words, view)) for view in views],
                wordless=targets.mean(dim=0),
                faces=faces,
                voices=voices,
                voice_frames=SHAPES.audio_frames,
            )
            together = TogetherRecipe(seed=options.seed, steps=options.steps)
            report = self._bar("all together", together.steps, "error {:.5f}")
            network = train_together(words, mixture, together, report)
        scores = dev_scores(network, dev_views, dev.targets, held_faces, held_voices)
        return network, scores | prototype_scores(network, held_faces, held_voices)

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

    def _faces(self, clips: int) -> tuple[FaceWindows, FaceWindows]:
        """Those to learn from, and others to score."""
        held, seed = max(20, round(clips * HELD_OUT)), 2 * self._options.seed
        task = self._progress.add_task("invent faces", total=clips + held)
        make = partial(
            make_faces, frames=SHAPES.vision_frames, span_s=SPANS_S["vision"],
            advance=partial(self._progress.advance, task),
        )  # fmt: skip
        return make(clips, seed=seed), make(held, seed=seed + 1)

    def _voices(self, takes: int) -> tuple[VoiceTakes, VoiceTakes]:
        """Those to learn from, and others to score."""
        held, seed = max(20, round(takes * HELD_OUT)), 2 * self._options.seed
        task = self._progress.add_task("invent voices", total=takes + held)
        make = partial(make_voices, advance=partial(self._progress.advance, task))
        return make(takes, seed=seed), make(held, seed=seed + 1)

    def _bar(self, name: str, total: int, measure: str) -> Callable[[int, float], None]:
        """A bar; the result moves it, with a value to show next to its name."""
        task = self._progress.add_task(name, total=total)

        def report(done: int, value: float) -> None:
            self._progress.update(task, completed=done, description=f"{name}: {measure.format(value)}")

        return report


def _encoder(folder: Path | None) -> SentenceEncoder:
    return SentenceEncoder(folder or ModelStore().locate("all-minilm-l6-v2"))


def _table(scores: Mapping[str, float]) -> Table:
    """Pearson's correlations, a column each of what was scored."""
    kinds = [name.removesuffix("_pearson_mean") for name in scores if name.endswith("_pearson_mean")]
    table = Table("Pearson", *(kind.replace("_", " ") for kind in kinds))
    for row in (*EMOTIONS, "mean"):
        found = [scores.get(f"{kind}_pearson_{row}") for kind in kinds]
        table.add_row(row, *("" if value is None else f"{value:.4f}" for value in found))
    return table


if __name__ == "__main__":
    sys.exit(main())
