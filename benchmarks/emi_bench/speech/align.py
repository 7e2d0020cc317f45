"""When words were said, where only the words are known: forced alignment with PocketSphinx."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["NotAlignedError", "align"]

FRAME_S: Final = 0.01
VARIANT: Final = re.compile(r"\(\d+\)$")  # read(2): the second pronunciation of "read"
NOT_A_WORD: Final = ("<", "[", "+")
BEAMS: Final = dict.fromkeys(("beam", "wbeam", "pbeam"), 1e-150)  # the words are known: prune next to nothing


class NotAlignedError(Exception):
    """The words cannot be found in the sound; the message says why."""


def align(samples: NDArray[np.float32], words: Sequence[str]) -> list[float]:
    """When each word ends, in seconds; half of them within some 20 ms (docs/benchmarks/speech.md).

    Args:
        samples: shape (n,), 16 kHz mono, in [-1, 1]; what is said in them is `words` and nothing else.
        words: as `spoken` gives them.

    Raises:
        NotAlignedError: PocketSphinx is absent, does not know a word, or does not find them in the sound.
    """
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise NotAlignedError("PocketSphinx is not installed: pip install 'emi-live[offline]'") from error
    decoder = Decoder(samprate=16_000, loglevel="FATAL", bestpath=False, **BEAMS)
    unknown = [word for word in dict.fromkeys(words) if decoder.lookup_word(word) is None]
    if unknown or not words:
        raise NotAlignedError(f"PocketSphinx's dictionary lacks {', '.join(unknown) or 'an empty text'}")
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    decoder.process_raw(pcm.tobytes(), full_utt=True)  # the mean of the cepstrum is that of the clip
    decoder.end_utt()
    found = [
        (VARIANT.sub("", segment.word), (segment.end_frame + 1) * FRAME_S)
        for segment in decoder.seg() or ()
        if not segment.word.startswith(NOT_A_WORD)
    ]
    if [text for text, _ in found] != list(words):
        raise NotAlignedError("PocketSphinx does not find the words in the sound")
    return [end_s for _, end_s in found]
