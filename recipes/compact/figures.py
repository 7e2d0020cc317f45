"""Everything that the docs say of a checkpoint, measured and written as JSON; one figure; and the pages.

`emi bench` measures agreement with people who rated: faces of FER+ `valid`, words of GoEmotions `dev`, voices
of the four speakers of EmoDB on whom nothing was fitted. The recipe's own scores come on top.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_bench.cli_truth import calibrate, ratings, truth
from emi_bench.render import draw_figures
from emi_bench.report import read_report
from emi_engine.onnx_export import export_beside
from emi_models.checkpoint import content_hash, load_checkpoint
from emi_models.files import user_cache
from recipes.compact import VERSION
from recipes.compact.calibrate import HELD_OUT
from recipes.compact.pages import write_pages
from recipes.compact.tables import INTERVALS, NEUTRALS, SETS, Scores, file_of, with_neutral

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["measure"]

SOURCES: Final = {
    "faces": ("ferplus", "face/ferplus/valid.csv"),
    "voices": ("emodb", "voice/emodb.tsv"),
    "words": ("goemotions", "goemotions/dev.tsv"),
}


def measure(
    checkpoint: Path, scores: Mapping[str, float], assets: Path, folder: Path, *, keep_intervals: bool
) -> list[Path]:
    """Measure a checkpoint, write JSON, figure and pages, and return the pages.

    Pictures and features are kept in the user's cache.

    Args:
        checkpoint: to measure.
        scores: those of the recipe (`scores`, `conduct`).
        assets: as of the recipe.
        folder: where everything goes; made if it does not exist (`pages.write_pages`).
        keep_intervals: write the intervals into the checkpoint, whose weights do not change, and export it
            again. Else the file stays as it is.
    """
    cache = user_cache(os.environ) / "truth"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, source in SOURCES.values():
        ratings(kind, assets / source, cache / kind)
    table = {name: cache / kind / "ratings.csv" for name, (kind, _) in SOURCES.items()}
    calibrated = folder / f"{checkpoint.stem}.calibrated.safetensors"
    calibrate(
        [table["faces"], table["words"]],
        checkpoint,
        calibrated,
        cache=cache / "features",
        json_=str(file_of(folder, INTERVALS)),
    )
    if keep_intervals:
        calibrated.replace(checkpoint)
        export_beside(checkpoint)
    else:
        calibrated.unlink()
    for name in SETS:
        speakers = ",".join(HELD_OUT) if name == "voices" else None
        json_ = str(file_of(folder, name))
        truth(table[name], checkpoint, speakers=speakers, cache=cache / "features", json_=json_)
    # Each picture of FER+ is another person, and words have no neutral: only voices can learn one.
    for mode in NEUTRALS:
        truth(
            table["voices"],
            checkpoint,
            speakers=",".join(HELD_OUT),
            baseline=mode,
            cache=cache / "features",
            json_=str(file_of(folder, with_neutral(mode))),
        )
    drawn = [read_report(file_of(folder, name)).page() for name in (*SETS, INTERVALS)]
    draw_figures(folder / "truth.png", drawn)
    _describe(checkpoint, scores).write(folder)
    return write_pages(folder)


def _describe(checkpoint: Path, scores: Mapping[str, float]) -> Scores:
    """The scores, and which file they are of."""
    loaded = load_checkpoint(checkpoint)
    return Scores(
        version=VERSION,
        checkpoint=checkpoint.name,
        sha256=content_hash(checkpoint),
        size_mb=checkpoint.stat().st_size / 1e6,
        parameters=sum(weights.numel() for weights in loaded.network.parameters()),
        hidden=int(str(loaded.header.config["mlp_hidden"])),
        created_by=loaded.header.created_by,
        scores=dict(scores),
    )
