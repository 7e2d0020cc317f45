"""Recording the demo's words and voice anew: `python -m emi_live.demo.record`.

Runs the words of the script and a synthesised voice through the real encoders, and keeps what the stages will
ask for. Needed after any change of the script, or of how the text stage joins words.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from emi_live.config import WindowConfig
from emi_live.demo.recorded import RECORDING
from emi_live.demo.sound import sound
from emi_live.demo.stages import transcript
from emi_live.stages.text import window_text
from emi_models.encoders.prosody import ProsodyEncoder
from emi_models.encoders.sentence import SentenceEncoder
from emi_models.store import ModelStore

__all__ = ["record"]


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
