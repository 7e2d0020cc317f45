"""What is said of a run in words, on the terminal and on the page alike; from its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_bench.fusion.page import number

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["WARNINGS", "summary"]

# By the field that is true of such a run.
WARNINGS: Final = {
    "random_model": "RANDOM WEIGHTS in the speech model: work, time and what is exact are real, but trained "
    "weights attend otherwise, so cosines and intensities are NOT those of a trained model. Give "
    "--model FOLDER.",
    "random_network": "RANDOM WEIGHTS in the network: the changes of intensities are NOT those of a trained "
    "one. Give --checkpoint FILE.",
}


def summary(found: Mapping[str, Any]) -> list[str]:
    """Model, network, clips, and what a whole pass costs."""
    clips = found["clips"]
    seconds = sum(clip["seconds"] for clip in clips)
    named = ", ".join(clip["name"] for clip in clips)
    whole = found["whole"]
    times = whole["ms"]
    took = "not timed" if times is None else f"{number(times['median'])} ms, median of {times['n']}"
    level = (
        "sound normalised by the last 12 s" if found["normalises"] else "sound taken as it is, not normalised"
    )
    return [
        f"speech model: {found['model']}; {level}; {found['torch_threads']} threads for PyTorch",
        f"network: {found['network']}",
        f"clips: {len(clips)}, {seconds:.1f} s: {named}",
        f"one pass over 12 s: {number(whole['gflop'])} GFLOP, {took}; with --audio-context full, once a hop",
    ]
