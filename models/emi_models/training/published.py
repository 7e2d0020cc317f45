"""What the papers report on Hume-Vidmimic2, to be shown beside scores on the same data, and only there.

None of it was measured here. Mean Pearson correlation over the six emotions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["HEADING", "OFFICIAL", "PUBLISHED", "Published", "published_for"]

HEADING: Final = "published, on the gated data; not measured here"
OFFICIAL: Final = "Hume-Vidmimic2"  # with this a set's description begins, if it is that set


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a paper's table. None: not reported. `source` says where it stands."""

    name: str
    modalities: str  # V, A, T, and M for motion
    valid: float | None
    test: float | None
    source: str


_TAEMI: Final = "TAEMI, Table 2"
_TWO_STAGE: Final = "Two-Stage Framework, Table 5"
_SEMANTIC: Final = "Semantic Matters, Table 1"
_DUAL: Final = "Dual-Stage Network, Table 3"
PUBLISHED: Final = (
    Published("baseline ViT", "V", 0.09, None, _TAEMI),
    Published("baseline wav2vec 2.0", "A", 0.24, None, _TAEMI),
    Published("baseline ViT + wav2vec 2.0", "V+A", 0.25, None, _TAEMI),
    Published("dual_stage", "V+A", 0.2846, None, _DUAL),
    Published("dual_stage", "A+T", 0.3518, None, _DUAL),
    Published("dual_stage", "V+A+T", 0.3626, None, _DUAL),
    Published("two_stage", "V+A+T", 0.4373, 0.506, _TWO_STAGE),
    Published("two_stage", "V+A+T+M", 0.4386, 0.506, _TWO_STAGE),
    Published("HSEmotion", "V+A+T", 0.446, 0.510, _SEMANTIC),
    Published("semantic_matters", "A+V", 0.380, None, _SEMANTIC),
    Published("semantic_matters", "T", 0.523, 0.559, _SEMANTIC),
    Published("semantic_matters", "V+A+T", 0.522, 0.556, _SEMANTIC),
    Published("semantic_matters", "V+T", 0.529, 0.563, _SEMANTIC),
    Published("taemi", "V+A+T", 0.55, None, _TAEMI),
)


def published_for(description: str) -> tuple[Published, ...]:
    """The papers' rows, if the clips are theirs; none for any other set, whose scores cannot be compared."""
    return PUBLISHED if description.startswith(OFFICIAL) else ()
