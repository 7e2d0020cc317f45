"""What a synthetic clip's person says: a sentence that names the topic and the emotions, for people to read.

The networks never see it: a clip's text vector comes of the same truth, but by `synth_streams`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["spoken_words"]

TOPICS: Final = (
    "my sister",
    "the match",
    "that film",
    "our garden",
    "the exam",
    "the journey",
    "work",
    "the dog",
)
FEELINGS: Final = (
    *("I really look up to this", "it makes me laugh", "I will see it through"),
    *("it hurts me too", "I can hardly wait", "I am so happy"),
)
STRONG: Final = 0.5


def spoken_words(topic: int, intensities: NDArray[np.float64]) -> str:
    """A sentence about topic number `topic` with what is felt of six intensities in [0, 1]."""
    about = TOPICS[topic % len(TOPICS)]
    felt = [
        f"{feeling}{', truly' if value > STRONG else ''}"
        for feeling, value in zip(FEELINGS, intensities, strict=True)
        if value > 0
    ]
    return f"So, about {about}: {', and '.join(felt) or 'well, it is what it is'}."
