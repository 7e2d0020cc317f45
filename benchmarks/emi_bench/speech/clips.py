"""Clips whose words are known, and where they can be had, when each was said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from emi_bench.speech.words import spoken
from emi_live.rings.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.speech.synthetic import Utterance

__all__ = ["Clip", "SaidWord", "Times", "read_sound", "with_silence_after"]

# true: as synthesised; given: they came with the clip; aligned: found by `emi_bench.speech.align`; none
Times = Literal["true", "given", "aligned", "none"]
Kind = Literal["real", "synthetic", "yours", "monologue"]

TAIL_S: Final = 2.0  # in life a microphone goes on: the last words become certain in the silence after them


@dataclass(frozen=True, slots=True)
class SaidWord:
    """A word as `spoken` has it, and when it ended, in seconds; None: not known."""

    text: str
    end_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Sound, shape (n,), 16 kHz mono, in [-1, 1], and what is said in it."""

    name: str
    kind: Kind
    samples: NDArray[np.float32] = field(repr=False)
    words: tuple[SaidWord, ...]
    times: Times
    note: str = ""  # why there are no times

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.samples.size / SAMPLE_RATE_HZ

    @classmethod
    def synthetic(cls, name: str, kind: Kind, said: Utterance) -> Clip:
        """An utterance of `emi_bench.speech.synthetic`."""
        words = tuple(SaidWord(text, word.end_s) for word in said.words for text in spoken(word.text))
        return cls(name, kind, said.samples, words, "true")


def with_silence_after(samples: NDArray[np.float32], seconds: float = TAIL_S) -> NDArray[np.float32]:
    """The sound, and so much silence after it."""
    return np.concatenate((samples, np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)))


def read_sound(path: Path) -> NDArray[np.float32]:
    """All sound of a media file, decoded, mixed down and resampled as the engine does it, shape (n,), 16 kHz.

    Raises:
        ConfigurationError: the path is not that of a file.
        SourceError: it cannot be read, or has no sound.
    """
    from emi_live.errors import SourceError
    from emi_live.resample import StreamingResampler
    from emi_live.sources.container import open_container, require_file
    from emi_live.sources.decode import StreamReader

    require_file(path)
    blocks: list[NDArray[np.float32]] = []
    resampler: StreamingResampler | None = None
    with open_container(path) as container:
        stream = next((s for s in container.streams.audio if s.codec_context), None)
        if stream is None:
            raise SourceError(f"{path} has no sound; give a recording of speech")
        reader = StreamReader(container, stream, (container.start_time or 0) * 1_000)
        for sound in reader.sounds():
            if resampler is None:
                resampler = StreamingResampler(sound.rate_hz)
            blocks += [block for block, _ in resampler.push(sound.pcm.mean(axis=1), sound.t_ns)]
    if resampler is not None:
        blocks += [block for block, _ in resampler.flush()]
    if not blocks:
        raise SourceError(f"nothing in {path} can be decoded as sound; try another file")
    return np.concatenate(blocks)
