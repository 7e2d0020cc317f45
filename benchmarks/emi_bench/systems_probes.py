"""What a linear reader gets out of each modality of a synthetic corpus: a yardstick for networks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_live.errors import ConfigurationError
from emi_models.data.synth import SynthCorpus
from emi_models.data.synth_config import SynthConfig, SynthError, SynthSizes
from emi_models.data.synth_probes import probe

if TYPE_CHECKING:
    from pathlib import Path

    from emi_models.data.synth_probes import Pooling
    from emi_models.vocabulary import Modality

__all__ = ["Probe", "corpus_of", "probes_of"]

READINGS: Final[tuple[tuple[Modality, Pooling, str], ...]] = (
    ("text", "mean", "words"),
    ("audio", "mean", "voice, mean of all frames"),
    ("vision", "mean", "face, mean of all frames"),
    ("audio", "marked", "voice, mean of the frames with the clip's topic"),
    ("vision", "marked", "face, mean of the frames with the clip's topic"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A ridge regression's correlation on the valid clips, the mean of the six emotions'."""

    reads: str
    rho: float


def corpus_of(folder: Path) -> SynthCorpus | None:
    """The corpus that `emi synth` wrote into a folder, made again from its settings; None if it was not that.

    Raises:
        ConfigurationError: `truth.json` is damaged, or of another version.
    """
    path = folder / "truth.json"
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return SynthCorpus(SynthConfig(**{**settings, "sizes": SynthSizes(**settings["sizes"])}))
    except (ValueError, TypeError, KeyError, SynthError) as error:
        raise ConfigurationError(f"{path} cannot be understood: {error}; make the corpus anew") from error


def probes_of(corpus: SynthCorpus) -> list[Probe]:
    """What each modality alone gives; seconds for thousands of clips."""
    return [
        Probe(reads=reads, rho=float(probe(corpus, modality, pooling).mean()))
        for modality, pooling, reads in READINGS
    ]
