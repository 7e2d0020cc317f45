"""Settings of the synthetic corpus: everything that decides it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from emi_models.errors import EmiError

__all__ = ["OFFICIAL_SIZES", "SMALL_SIZES", "SynthConfig", "SynthError", "SynthSizes"]


class SynthError(EmiError, ValueError):
    """A synthetic corpus cannot be made as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSizes:
    """Widths of one frame and frames per second."""

    vision_dim: int
    audio_dim: int
    text_dim: int
    vision_hz: float
    audio_hz: float


# Small enough that a network trains on one core in about a minute.
SMALL_SIZES: Final = SynthSizes(vision_dim=32, audio_dim=48, text_dim=64, vision_hz=6.0, audio_hz=10.0)
# The features that come with Hume-Vidmimic2 (ViT, wav2vec 2.0), and a text encoder of the papers' width.
OFFICIAL_SIZES: Final = SynthSizes(vision_dim=384, audio_dim=768, text_dim=768, vision_hz=6.0, audio_hz=50.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthConfig:
    """Everything that decides a corpus; shares lie in [0, 1]."""

    clips: int
    seed: int = 0
    sizes: SynthSizes = SMALL_SIZES
    # Published shares of clips without words. That some lack face or voice is ours: no share is published.
    missing_text_train: float = 0.0567
    missing_text_valid: float = 0.0634
    missing_vision: float = 0.01
    missing_audio: float = 0.005
    shortest: float = 0.001  # share of clips of the data set's shortest length, 0.064 s
    longest: float = 0.0005  # share of clips from one minute to the data set's longest, 1250 s
    topics: int = 6
    salient: float = 0.5  # share of a clip's moments that are its own; at least one is
    moment_s: float = 1.6  # mean length of a moment
    keyed: bool = True  # False: salient moments bear any mark, so that words do not tell which they are
    # Correlation of what a modality's own moments show with the emotions, over that of table 4 of the
    # two-stage paper; above 1 for voice and face, because distractors take from it. See docs/benchmarks.
    text_clarity: float = 1.2
    audio_clarity: float = 1.35
    vision_clarity: float = 1.4
    mark: float = 2.0  # length of a topic's mark, in standard deviations of an emotion
    person: float = 0.2  # standard deviation of a person's own look and sound, in each dimension
    noise: float = 0.5  # standard deviation of a frame's noise, in each dimension
    text_noise: float = 0.1  # of the words' vector, in each dimension
    drowning_noise: float = 2.0  # of a voice while it is drowned, in each dimension
    hidden: float = 0.15  # share of clips whose face is hidden for a while
    drowned: float = 0.10  # share of clips whose sound is drowned for a while

    def __post_init__(self) -> None:
        if not 10 <= self.clips <= 99_999:
            raise SynthError(f"{self.clips} clips: give 10 to 99999, since an id has five digits")
        if not 0 <= self.seed < 2**32:
            raise SynthError(f"seed {self.seed}: give 0 to 4294967295")
        if self.topics < 2:
            raise SynthError(f"{self.topics} topics: a distractor needs another topic, give at least 2")
        for field in fields(self):
            if field.name.startswith(("missing_", "short", "long", "salient", "hidden", "drowned")):
                value = getattr(self, field.name)
                if not 0.0 <= value <= 1.0:
                    raise SynthError(f"{field.name} is {value:g}: it is a share, give 0 to 1")
        widths = (self.sizes.vision_dim, self.sizes.audio_dim, self.sizes.text_dim)
        if min(widths) < 6 + self.topics:
            raise SynthError(
                f"a frame of {min(widths)} values cannot hold 6 emotions and {self.topics} topics; "
                f"give at least {6 + self.topics}"
            )
