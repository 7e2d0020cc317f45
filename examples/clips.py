"""A folder of clips: a table of each, and which moment was the strongest.

python examples/clips.py recordings/
python examples/clips.py recordings/ speech.backend=none window.hop_s=0.5    # any settings

Every frame is used, and every run gives the same numbers. For files of other formats, several processes and
a run that continues after a crash there is the command `emi score`.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from emi_live import EmiError, load_config
from emi_live.scoring.clip import ClipScorer


def main(folder: Path, settings: list[str]) -> None:
    """Write CLIP.csv next to each clip."""
    with ClipScorer(load_config(settings=settings)) as scorer:  # loads the models once
        for path in sorted(folder.iterdir()):
            if path.suffix not in (".mp4", ".mov", ".mkv", ".wav", ".flac"):
                continue
            try:
                scores = scorer.score(path)  # pandas.DataFrame(scores) works too
            except EmiError as error:
                print(f"{path.name}: left out: {error}")
                continue
            with path.with_suffix(".csv").open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(scores)
                rows.writerows(zip(*scores.values(), strict=True))
            for name in scores.targets:
                peak = scores[name].argmax()
                mean, most, at_s = scores[name].mean(), scores[name][peak], scores["t"][peak]
                print(f"{path.name}: {name:14} mean {mean:.3f}  max {most:.3f} at {at_s:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
