"""A scored clip, made up: joy rises and falls once, two sentences are said."""

from __future__ import annotations

from typing import Any

import numpy as np

from emi_live.messages import Word
from emi_live.scoring.clip import Scores
from emi_models import EMOTIONS, MODALITIES

SAID = (
    ("Ask", 0.4, 0.7),
    ("not", 0.7, 1.0),
    ("what.", 1.0, 1.5),
    ("Ask", 3.0, 3.3),
    ("über", 3.3, 3.8),
    ("me", 3.8, 4.0),
)


def made_up(rows: int = 25, hop_s: float = 0.2, *, bands: bool = False) -> Scores:
    times = hop_s * np.arange(1, rows + 1)
    columns: dict[str, Any] = {
        "file": ["clip.mp4"] * rows,
        "session": ["ab12cd34"] * rows,
        "schema": [1] * rows,
        "seq": list(range(rows)),
        "t": times,
    }
    for name in EMOTIONS:
        columns[name] = np.full(rows, 0.1)
    columns["joy"] = np.where((times > 1.01) & (times < 3.01), 0.75, 0.25)
    if bands:
        for name in EMOTIONS:
            columns[f"{name}_low"], columns[f"{name}_high"] = columns[name] - 0.05, columns[name] + 0.05
    for modality in MODALITIES:
        columns[f"{modality}_state"] = ["missing"] * 3 + ["live"] * (rows - 3)
        columns[f"{modality}_used"] = [False] * 3 + [True] * (rows - 3)
        columns[f"{modality}_age_ms"] = np.array([np.nan] * 3 + [12.5] * (rows - 3))
        columns[f"{modality}_reason"] = ["no face"] * 3 + [None] * (rows - 3)
    columns["committed"], columns["partial"] = [""] * rows, ['Ask, "not"'] * rows
    columns["f0_hz"] = np.array([np.nan] * 5 + [180.25] * (rows - 5))
    words = [
        Word(text, round(start * 1e9), round(end * 1e9), number < 5, number)
        for number, (text, start, end) in enumerate(SAID)
    ]
    return Scores(
        columns,
        EMOTIONS,
        words,
        duration_s=rows * hop_s,
        hop_s=hop_s,
        limits=[(0.0, 1.0)] * 6,
        pictures=150,
        faces=132,
    )
