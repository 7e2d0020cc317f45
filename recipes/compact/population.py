"""Measure what many people are like at rest: the tables of `emi_models.population`.

    python -m recipes.compact.population --assets DIR > models/emi_models/population.py

Faces are those of FER+ `train` that at least eight of ten raters called neutral; voices are the neutral
recordings of the six speakers of EmoDB on whom the scores of the voice were fitted. DIR is that of the
recipe.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emi_models.encoders.face import BLENDSHAPES
from emi_models.encoders.prosody import F0, VOICING, ProsodyEncoder
from emi_models.errors import EmiError
from recipes.compact.calibrate import HELD_OUT, read_recordings
from recipes.compact.ferplus import read_rated_faces
from recipes.compact.seeing import at_rest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HEARD = 0.6  # voicing from which a frame is a voice, as in `emi_models.baseline`
A_LINE = 12
HEAD = '''"""What many people are like at rest, of the features of `compact`; for `emi_models.baseline`.

Made by `python -m recipes.compact.population`: {faces:,} faces of FER+ that people called neutral,
and {voices} neutral recordings of six speakers of EmoDB.
"""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = ["FACE_AT_REST", "FACE_HIGH", "FACE_LOW", "VOICE_AT_REST"]
'''


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the module; return 0, or 2 after one line with the error."""
    parser = argparse.ArgumentParser(prog="python -m recipes.compact.population", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--assets", type=Path, required=True, help="folder of the data, as of the recipe")
    assets = parser.parse_args(arguments).assets
    try:
        model = assets / "mediapipe" / "face_landmarker.task"
        faces = at_rest(read_rated_faces(assets / "face" / "ferplus", "train", model, lambda _: None))
        recordings = [
            r
            for r in read_recordings(assets / "voice")
            if r.speaker not in HELD_OUT and r.emotion == "neutral"
        ]
    except EmiError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    encoder, frames = ProsodyEncoder(), []
    for recording in recordings:
        encoder.reset()
        heard = encoder.push(recording.sound)
        frames.append(heard[(heard[:, VOICING] >= HEARD) & (heard[:, F0] != 0)])
    low, middle, high = np.quantile(faces[:, :BLENDSHAPES], [0.1, 0.5, 0.9], axis=0)
    tables = {
        "FACE_LOW": ("One of ten neutral faces is below, (52,).", low),
        "FACE_AT_REST": ("The median of the 52 blendshapes.", middle),
        "FACE_HIGH": ("One of ten is above.", high),
        "VOICE_AT_REST": ("The median of voiced frames, (73,).", np.median(np.concatenate(frames), axis=0)),
    }
    lines = [HEAD.format(faces=len(faces), voices=len(recordings))]
    for name, (comment, values) in tables.items():
        lines += [f"# {comment}", f"{name}: Final = np.array(", "    [", *_rows(values), "    ],",
                  "    np.float32,", ")"]  # fmt: skip
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _rows(values: NDArray[np.floating]) -> list[str]:
    """The numbers, some on each line."""
    texts = [f"{value:.3f}" for value in values]
    rows = [texts[first : first + A_LINE] for first in range(0, len(texts), A_LINE)]
    return [f"        *({', '.join(row)})," if len(row) > 1 else f"        {row[0]}," for row in rows]


if __name__ == "__main__":
    sys.exit(main())
