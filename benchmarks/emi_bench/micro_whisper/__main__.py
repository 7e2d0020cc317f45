"""`python -m emi_bench.micro_whisper --out FOLDER`: train, export, measure, and write the model card."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emi_models.errors import EmiError

if TYPE_CHECKING:
    from emi_bench.micro_whisper.losses import Losses

__all__ = ["main"]


def main(
    out: Annotated[Path, typer.Option(help="folder of the model; files of its names are replaced")],
    seed: Annotated[int, typer.Option(help="of the weights and of the data")] = 1,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    clips: Annotated[int, typer.Option(help="clips of a set to measure on")] = 100,
    json_path: Annotated[Path | None, typer.Option("--json", help="where to write what was measured")] = None,
) -> None:
    """Train a micro-Whisper on synthetic speech, export it, and measure it."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from emi_bench.micro_whisper.card import card
    from emi_bench.micro_whisper.evaluate import evaluate
    from emi_bench.micro_whisper.export import export
    from emi_bench.micro_whisper.tokens import Tokens, make_tokenizer
    from emi_bench.micro_whisper.train import Plan, train

    torch.set_num_threads(threads)
    plan = replace(Plan(), seed=seed)
    tokenizer = make_tokenizer()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("first speakers", total=plan.steps)

        def show(done: int, found: Losses) -> None:
            said = f"text {float(found.text):.2f}, attention {float(found.looked):.2f}"
            progress.update(task, completed=done, description=f"{said}, frames {float(found.frames):.2f}")

        network = train(plan, Tokens.of(tokenizer), show, lambda _, now: export(now, tokenizer, out))
    scores = evaluate(out, clips)
    parameters = sum(parameter.numel() for parameter in network.whisper.parameters())
    text = card(plan, scores, parameters)
    (out / "README.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    if json_path is not None:
        found = [score.to_json() for score in scores]
        json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        typer.run(main)
    except EmiError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
