"""Record the demo's words and voice: `python -m tools.record_demo`.

Runs the words of the script and a synthesised voice through the real encoders, and keeps what the stages
will ask for. Needed after any change of the script, or of how the text stage joins words. The voice is
synthetic, made by the synthesiser of the packaged checkpoint's recipe.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from emi_live.config import WindowConfig
from emi_live.demo import LENGTH_S, RECORDING, UTTERANCES, transcript
from emi_live.stages.text import window_text
from emi_models.encoders.prosody import ProsodyEncoder
from emi_models.encoders.sentence import SentenceEncoder
from emi_models.store import ModelStore
from recipes.compact.manners import LAUGH, PLAIN, VOICES
from recipes.compact.synthesiser import RATE_HZ, Tracks, synthesise
from recipes.compact.utterances import Speaker, Take, laugh, speak

__all__ = ["record", "sound"]

WHO: Final = Speaker(f0_hz=190.0, tract=1.13, breath=0.08, jitter=0.008, shimmer=0.05)
NOISE: Final = 1e-3  # of a quiet room: -60 dBFS
MANNERS: Final = (PLAIN[0], PLAIN[0], VOICES[0], VOICES[1])  # of the utterances, in their order
LAUGHS_S: Final = (6.0, 9.5)  # over the end of the first utterance, and beyond


def sound() -> NDArray[np.float32]:
    """The whole show, 16 kHz mono."""
    rng = np.random.default_rng(7)
    show = rng.normal(0.0, NOISE, round(LENGTH_S * RATE_HZ))
    for utterance, manner in zip(UTTERANCES, MANNERS, strict=True):
        seconds = utterance.end_s - utterance.start_s
        _put(show, utterance.start_s, seconds, speak(seconds, WHO, Take.middle(manner), rng), rng)
    since_s, until_s = LAUGHS_S
    _put(show, since_s, until_s - since_s, laugh(until_s - since_s, WHO, Take.middle(LAUGH), rng), rng)
    return np.clip(show, -1.0, 1.0).astype(np.float32)


def _put(
    show: NDArray[np.float64], at_s: float, seconds: float, tracks: Tracks, rng: np.random.Generator
) -> None:
    """Sound the tracks in the show from that moment, in place of what was there, and no longer than that."""
    voice = synthesise(tracks, WHO.jitter, WHO.shimmer, rng)[: round(seconds * RATE_HZ)]
    start = round(at_s * RATE_HZ)
    show[start : start + len(voice)] = voice + rng.normal(0.0, NOISE, len(voice))


def record(folder: Path) -> int:
    """Write the show's prosody and the embeddings of every sentence it asks for; gives their number.

    Args:
        folder: the real encoder's files, in transformers' format.
    """
    length_s = WindowConfig().length_s
    sentences = sorted({text for packet in transcript(0) if (text := window_text(packet, length_s))})
    vectors = SentenceEncoder(folder).encode(sentences).astype(np.float16)
    prosody = ProsodyEncoder().push(sound()).astype(np.float16)
    tensors = {"embeddings": vectors, "prosody": prosody}
    save_file(tensors, RECORDING, metadata={"sentences": json.dumps(sentences)})
    RECORDING.chmod(0o644)
    return len(sentences)


if __name__ == "__main__":
    record(ModelStore().locate("all-minilm-l6-v2"))
