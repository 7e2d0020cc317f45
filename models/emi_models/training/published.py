"""What the papers report, row by row: mean Pearson correlation over six emotions on Hume-Vidmimic2.

None of it was measured here, and it is shown only next to scores on the same data. Most rows are of systems
whose audio and text encoders were trained together with the rest; `frozen` marks those on stored features,
which is what `emi train` makes without `--train-encoders`.

Sources, in the versions that were read:

- TAEMI: "Anchoring Emotions in Text", arXiv:2603.14976v1, Tables 2 to 4.
- Two-Stage: "Two-Stage Multimodal Framework for Emotion Mimicry Intensity Prediction" (10th ABAW, 2026; the
  copy that was read has no arXiv id), Tables 3 to 5. Its §4.6 trains encoders of stored features.
- Semantic Matters: "Semantic Matters: Multimodal Features for Affective Analysis" (8th ABAW, CVPR Workshops
  2025; the copy that was read has no arXiv id), Tables 1 and 3. † = trained on train and valid.
- Dual-Stage: arXiv:2503.10603v1, Tables 2 and 3. Its v3 has another title and reports .512 and .680; those
  are quoted from Semantic Matters, Table 1, and what changed is not in v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FROZEN_RANGE", "HEADING", "OFFICIAL", "PUBLISHED", "Published", "published_for"]

HEADING: Final = "published, on the gated data; not measured here"
OFFICIAL: Final = "Hume-Vidmimic2"  # with this a set's description begins, if it is that set
# Valid scores with stored features: text alone, and fusion (Two-Stage, Tables 3 and 5, 2:1 split).
FROZEN_RANGE: Final = (0.41, 0.44)


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a paper's table. None: not reported. `source` says where it stands."""

    name: str
    modalities: str  # V, A, T, and M for motion
    valid: float | None
    test: float | None
    source: str
    frozen: bool = False  # on stored features; encoders were not trained


_TAEMI: Final = "TAEMI, Table 2"
_TAEMI_PARTS: Final = "TAEMI, Table 3"
_TAEMI_ANCHORS: Final = "TAEMI, Table 4"
_TWO_STAGE_ALONE: Final = "Two-Stage, Table 3"
_TWO_STAGE: Final = "Two-Stage, Table 5"
_SEMANTIC: Final = "Semantic Matters, Table 1"
_SEMANTIC_MTL: Final = "Semantic Matters, Table 3"
_DUAL_ALONE: Final = "Dual-Stage v1, Table 2"
_DUAL: Final = "Dual-Stage v1, Table 3"

PUBLISHED: Final = (
    Published("baseline ViT", "V", 0.09, None, _TAEMI, frozen=True),
    Published("baseline wav2vec 2.0", "A", 0.24, None, _TAEMI, frozen=True),
    Published("baseline ViT + wav2vec 2.0", "V+A", 0.25, None, _TAEMI, frozen=True),
    Published("Yu, Zhu and Zhu 2024", "V+A", 0.32, None, _TAEMI),
    Published("Hallmen et al. 2024", "A", 0.38, None, _TAEMI),
    Published("HSEmotion 2025", "V+A+T", 0.446, 0.510, _SEMANTIC, frozen=True),  # .44 in TAEMI's table
    Published("Zhang et al. 2024", "V+A+T", 0.46, None, _TAEMI),
    Published("dual_stage", "V", 0.16, None, _DUAL_ALONE),
    Published("dual_stage", "A", 0.2734, None, _DUAL_ALONE),
    Published("dual_stage", "V+A", 0.2846, None, _DUAL),
    Published("dual_stage", "V+T", 0.2934, None, _DUAL),
    Published("dual_stage", "A+T", 0.3518, None, _DUAL),
    Published("dual_stage", "V+A+T", 0.3626, None, _DUAL),
    Published("dual_stage, v3 of the paper", "V+A+T", 0.512, 0.680, _SEMANTIC),
    Published("two_stage, text", "T", 0.4076, None, _TWO_STAGE_ALONE, frozen=True),
    Published("two_stage, audio", "A", 0.3600, None, _TWO_STAGE_ALONE, frozen=True),
    Published("two_stage, vision", "V", 0.1535, None, _TWO_STAGE_ALONE, frozen=True),
    Published("two_stage, F1", "V+A+T", 0.4373, 0.506, _TWO_STAGE, frozen=True),
    Published("two_stage, F2", "V+A+T+M", 0.4386, 0.506, _TWO_STAGE, frozen=True),
    Published("two_stage, F3, 4:1 split", "V+A+T", 0.4717, 0.570, _TWO_STAGE, frozen=True),
    Published("two_stage, F4, 4:1 split", "V+A+T+M", 0.4722, 0.562, _TWO_STAGE, frozen=True),
    Published("two_stage, F5", "V+A+T", 0.4400, 0.491, _TWO_STAGE, frozen=True),
    Published("semantic_matters", "A+V", 0.380, None, _SEMANTIC),
    Published("semantic_matters", "T", 0.523, 0.559, _SEMANTIC),
    Published("semantic_matters", "T+A", 0.520, 0.558, _SEMANTIC),
    Published("semantic_matters", "V+A+T", 0.522, 0.556, _SEMANTIC),
    Published("semantic_matters", "V+T", 0.529, 0.563, _SEMANTIC),
    Published("semantic_matters †", "V+T", None, 0.706, _SEMANTIC),
    Published("semantic_matters, multitask", "A+V", 0.385, None, _SEMANTIC_MTL),
    Published("semantic_matters, multitask", "A+T", 0.495, None, _SEMANTIC_MTL),
    Published("semantic_matters, multitask", "V+T", 0.501, None, _SEMANTIC_MTL),
    Published("semantic_matters, multitask", "V+A+T", 0.493, None, _SEMANTIC_MTL),
    Published("taemi, simple concatenation", "V+A+T", 0.45, None, _TAEMI_PARTS),
    Published("taemi, self-attention only", "V+A+T", 0.48, None, _TAEMI_PARTS),
    Published("taemi, no missing tokens", "V+A+T", 0.52, None, _TAEMI_PARTS),
    Published("taemi, no modality dropout", "V+A+T", 0.51, None, _TAEMI_PARTS),
    Published("taemi, vision anchor", "V+A+T", 0.39, None, _TAEMI_ANCHORS),  # 0.49 in the paper's text
    Published("taemi, audio anchor", "V+A+T", 0.51, None, _TAEMI_ANCHORS),
    Published("taemi", "V+A+T", 0.55, None, _TAEMI),
)


def published_for(description: str) -> tuple[Published, ...]:
    """The papers' rows, if the clips are theirs; none for any other set, whose scores cannot be compared."""
    return PUBLISHED if description.startswith(OFFICIAL) else ()
