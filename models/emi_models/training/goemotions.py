"""The recipe of the packaged `compact` checkpoint: TAEMI's text branch, trained on GoEmotions.

    python -m emi_models.training.goemotions --data DIR --out compact.safetensors

MiniLM is frozen. Each comment is shown as written, as a speech recogniser would give it, or cut short at
random. Face and voice are not trained: the checkpoint says so, and they enter as their tokens. The epoch is
chosen on comments held out of `train`; `dev` is only scored. Runs on a CPU: minutes for the embeddings, which
are kept in the user's cache, then minutes for the network.
"""

from __future__ import annotations

import argparse
import random
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from emi_models.checkpoint import CheckpointHeader, save_checkpoint
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.sentence import SentenceEncoder
from emi_models.errors import EmiError
from emi_models.store import ModelStore
from emi_models.systems import describe_config
from emi_models.training.embeddings import embed
from emi_models.training.goemotions_data import cut_short, pearson, read_split, spoken
from emi_models.training.text_branch import Recipe, predict, train
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from emi_models.networks.taemi import Taemi

__all__ = ["main"]

DATA: Final = "GoEmotions train, filtered release (Demszky et al. 2020), 43,410 Reddit comments"
LICENCE: Final = "weights Apache-2.0; trained on GoEmotions, CC BY 4.0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score and save as the command line asks; 0, or 2 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m emi_models.training.goemotions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of train.tsv, dev.tsv and labels.txt"
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2; default: the model store's")
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; others round differently")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console()
    try:
        network, scores = _run(options, console)
        header = CheckpointHeader(
            system="taemi",
            config=describe_config(network.config),
            modalities=network.config.modalities,
            encoders=COMPACT_ENCODERS,
            data=DATA,
            licence=LICENCE,
            scores=scores,
            created_by=f"emi_models.training.goemotions, seed {options.seed}, torch {torch.__version__}",
        )
        save_checkpoint(options.out, network, header)
    except (EmiError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return 2
    console.print(f"saved {options.out}; for a quick start: python -m emi_engine.onnx_export {options.out}")
    return 0


def _run(options: argparse.Namespace, console: Console) -> tuple[Taemi, dict[str, float]]:
    """The trained network and its scores on `dev`, as written and as spoken."""
    learn, dev = read_split(options.data, "train"), read_split(options.data, "dev")
    choice = random.Random(0)  # noqa: S311  # names and cuts: part of the data, the same for every seed
    said = [spoken(text, choice) for text in learn.texts]
    guises = {
        "as written": learn.texts,
        "as spoken": said,
        "cut short": [cut_short(text, choice) for text in said],
        "dev, as written": dev.texts,
        "dev, as spoken": [spoken(text, choice) for text in dev.texts],
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    recipe = Recipe(seed=options.seed, epochs=options.epochs)
    with Progress(*columns, console=console) as progress:
        vectors = {}
        for name, texts in guises.items():
            task = progress.add_task(f"embed {name}", total=len(texts))
            done = partial(progress.advance, task)
            vectors[name] = torch.from_numpy(embed(texts, partial(_encoder, options.minilm), done))
        task = progress.add_task("train", total=recipe.epochs)

        def report(epoch: int, score: float) -> None:
            progress.update(
                task, completed=epoch + 1, description=f"train: held-out mean Pearson {score:.4f}"
            )

        views = [vectors[name] for name in ("as written", "as spoken", "cut short")]
        network = train(views, torch.from_numpy(learn.targets), recipe, report)
    written = pearson(predict(network, vectors["dev, as written"]), dev.targets)
    heard = pearson(predict(network, vectors["dev, as spoken"]), dev.targets)
    console.print(_table(written, heard))
    return network, _scores("dev_written", written) | _scores("dev_spoken", heard)


def _encoder(folder: Path | None) -> SentenceEncoder:
    return SentenceEncoder(folder or ModelStore().locate("all-minilm-l6-v2"))


def _scores(name: str, correlations: NDArray[np.float64]) -> dict[str, float]:
    each = {f"{name}_pearson_{e}": round(float(c), 4) for e, c in zip(EMOTIONS, correlations, strict=True)}
    return {f"{name}_pearson_mean": round(float(correlations.mean()), 4), **each}


def _table(written: NDArray[np.float64], heard: NDArray[np.float64]) -> Table:
    table = Table("Pearson on dev", "as written", "as spoken")
    for emotion, a, b in zip(EMOTIONS, written, heard, strict=True):
        table.add_row(emotion, f"{a:.3f}", f"{b:.3f}")
    table.add_row("mean", f"{written.mean():.4f}", f"{heard.mean():.4f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
