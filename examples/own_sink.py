"""Send estimates to your own sink: here a CSV file, one row per estimate.

python examples/own_sink.py out.csv      # plays the demo, which needs no camera and no model
"""

from __future__ import annotations

import csv
import sys
from functools import partial
from pathlib import Path

from emi_live import EMOTIONS, Estimate, LiveConfig, LiveEngine
from emi_live.demo import demo_stages


class CsvSink:
    """One row per estimate. `LiveEngine` runs the sink in its own thread, so a slow disk delays nothing."""

    name = "csv"
    finished = False  # True: nobody reads any more, e.g. a closed pipe

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", newline="")  # a bad path fails here, before the engine starts
        self._rows = csv.writer(self._file)

    def open(self) -> None:
        """Write the header."""
        if self._file.tell() == 0:
            self._rows.writerow(["t_s", *EMOTIONS])

    def write(self, estimate: Estimate) -> None:
        """Write one row."""
        self._rows.writerow([f"{estimate.t_s:.3f}", *(f"{value:.4f}" for value in estimate.intensities)])

    def idle(self) -> None:
        """Called about every 100 ms while no estimate comes."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    config = LiveConfig(duration_s=3.0)
    show = partial(demo_stages, length_s=config.window.length_s)
    with LiveEngine(config, sinks=[CsvSink(Path(sys.argv[1]))], make_stages=show) as live:
        print(sum(1 for _ in live.estimates()), "estimates")
