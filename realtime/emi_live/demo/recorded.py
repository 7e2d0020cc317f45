"""What was recorded for the demo: the embeddings of its words, and its voice as prosody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from emi_live.errors import ConfigurationError

__all__ = ["RECORDING", "RecordedSentences", "recorded_prosody"]

RECORDING: Final = Path(str(resources.files("emi_live"))) / "data" / "demo.safetensors"


def recorded_prosody() -> NDArray[np.float32]:
    """The prosody of the whole show, (T, 68), 50 frames a second (stored in half precision)."""
    with safe_open(RECORDING, framework="np") as file:
        prosody: NDArray[np.float32] = file.get_tensor("prosody").astype(np.float32)
    return prosody


class RecordedSentences:
    """A sentence encoder that knows the sentences of the script and no other."""

    def __init__(self, table: dict[str, NDArray[np.float32]]) -> None:
        self._table = table

    @classmethod
    def load(cls) -> Self:
        """The embeddings that ship with the package (stored in half precision)."""
        with safe_open(RECORDING, framework="np") as file:
            sentences = json.loads(file.metadata()["sentences"])
            vectors = file.get_tensor("embeddings").astype(np.float32)
        return cls(dict(zip(sentences, vectors, strict=True)))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings, shape (len(texts), 384).

        Raises:
            ConfigurationError: a sentence was never recorded.
        """
        unknown = [text for text in texts if text not in self._table]
        if unknown:
            raise ConfigurationError(
                f"the demo has no recorded embedding of {unknown[0]!r}; run `python -m emi_live.demo.record`"
            )
        return np.stack([self._table[text] for text in texts])
