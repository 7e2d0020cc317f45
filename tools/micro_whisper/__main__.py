"""`python -m tools.micro_whisper --out FOLDER`: train, export, measure, and write the model card."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emi_models.errors import EmiError

if TYPE_CHECKING:
    from tools.micro_whisper.network import Losses

__all__ = ["main"]


def main(
    out: Annotated[Path, typer.Option(help="Folder of the model; its files are replaced.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the data.")] = 1,
    threads: Annotated[int, typer.Option(help="PyTorch's threads.")] = 2,
    clips: Annotated[int, typer.Option(help="Clips of each set that is measured.")] = 100,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the scores to this file as JSON.")
    ] = None,
) -> None:
    """Train a micro-Whisper on synthetic speech, export it, and measure it.

    For example: python -m tools.micro_whisper --out out/micro-whisper --json scores.json
    """
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tools.micro_whisper.evaluation import card, evaluate
    from tools.micro_whisper.examples import Tokens, make_tokenizer
    from tools.micro_whisper.training import TrainingPlan, export, train

    torch.set_num_threads(threads)
    plan = replace(TrainingPlan(), seed=seed)
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
