"""Intervals, figures and the page of a new checkpoint: what `emi bench` measures on people who rated.

Faces are FER+ `valid`, words GoEmotions `dev`, voices the four speakers of EmoDB on whom nothing was fitted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from emi_bench.cli_truth import calibrate, ratings, truth
from emi_bench.report import make_report
from emi_engine.onnx_export import export_beside
from emi_models.files import user_cache
from recipes.compact.calibrate import HELD_OUT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PAGE", "measure"]

PAGE: Final = "truth"
SETS: Final = {
    "faces": ("ferplus", "face/ferplus/valid.csv"),
    "voices": ("emodb", "voice/emodb.tsv"),
    "words": ("goemotions", "goemotions/dev.tsv"),
}


def measure(checkpoint: Path, assets: Path, folder: Path) -> Path:
    """Give the checkpoint its intervals, export it again, and write its figures; return the page.

    `truth-NAME.json` holds each measurement, `truth.md` and `truth.png` show all. Pictures and features are
    kept in the user's cache.

    Args:
        checkpoint: is written anew; its weights do not change.
        assets: as of the recipe.
        folder: is made if it does not exist.
    """
    cache = user_cache(os.environ) / "truth"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, source in SETS.values():
        ratings(kind, assets / source, cache / kind)
    table = {name: cache / kind / "ratings.csv" for name, (kind, _) in SETS.items()}
    file = {name: folder / f"{PAGE}-{name}.json" for name in (*SETS, "intervals")}
    calibrated = checkpoint.with_suffix(".calibrated.safetensors")
    calibrate(
        [table["faces"], table["words"]],
        checkpoint,
        calibrated,
        cache=cache / "features",
        json_=str(file["intervals"]),
    )
    calibrated.replace(checkpoint)
    export_beside(checkpoint)
    for name in SETS:
        speakers = ",".join(HELD_OUT) if name == "voices" else None
        truth(table[name], checkpoint, speakers=speakers, cache=cache / "features", json_=str(file[name]))
    make_report(list(file.values()), folder / PAGE, figure=True)
    return folder / f"{PAGE}.md"
