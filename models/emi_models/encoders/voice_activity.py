"""Voice activity: Silero VAD, from the file that faster-whisper carries, run as the sound arrives."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.errors import ModelUnavailableError
from emi_models.libraries import cpu_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CHUNK_SAMPLES", "VoiceGate", "find_voice_model"]

CHUNK_SAMPLES: Final = 512  # 32 ms at 16 kHz, the only size the model takes
CONTEXT_SAMPLES: Final = 64  # of the chunk before, put in front of each chunk
STATE_SHAPE: Final = (1, 1, 128)
MODEL_FILE: Final = "silero_vad_v6.onnx"


def find_voice_model() -> Path:
    """The path of the Silero model in the installed faster-whisper, which is not imported for it.

    Raises:
        ModelUnavailableError: faster-whisper is absent, or of a version with another model.
    """
    spec = importlib.util.find_spec("faster_whisper")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "assets" / MODEL_FILE
        if path.is_file():
            return path
    raise ModelUnavailableError(
        f"faster-whisper's {MODEL_FILE} is not installed: install faster-whisper 1.2 or newer"
    )


class VoiceGate:
    """Says how probable speech is in each 32 ms of one stream of 16 kHz mono sound.

    The model is recurrent: a gate serves one stream. The probabilities do not depend on how the stream is
    cut into pushes, to the last bit, because every chunk is run alone. One thread at a time; onnxruntime
    starts none.

    Source: https://github.com/snakers4/silero-vad, called as in faster_whisper.vad.SileroVADModel.
    """

    def __init__(self, model_path: str | Path | None = None) -> None:
        """Load the model; by default the one of faster-whisper.

        Raises:
            ModelUnavailableError: there is no such file.
        """
        path = find_voice_model() if model_path is None else Path(model_path)
        if not path.is_file():
            raise ModelUnavailableError(
                f"there is no voice model at {path}: install faster-whisper 1.2 or newer"
            )
        import onnxruntime

        options = cpu_options()
        options.enable_cpu_mem_arena = False
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.reset()

    def reset(self) -> None:
        """Forget the audio so far, as at a gap; an incomplete chunk is dropped."""
        self._h = np.zeros(STATE_SHAPE, np.float32)
        self._c = np.zeros(STATE_SHAPE, np.float32)
        self._window = np.zeros((1, CONTEXT_SAMPLES + CHUNK_SAMPLES), np.float32)
        self._filled = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The speech probability of every chunk that these samples complete, shape (n,), in [0, 1].

        Args:
            samples: shape (n,), any length, in [-1, 1]; the next ones of the stream.
        """
        probabilities = []
        offset = 0
        while offset < samples.size:
            take = min(CHUNK_SAMPLES - self._filled, samples.size - offset)
            start = CONTEXT_SAMPLES + self._filled
            self._window[0, start : start + take] = samples[offset : offset + take]
            self._filled += take
            offset += take
            if self._filled == CHUNK_SAMPLES:
                probabilities.append(self._run())
        return np.array(probabilities, np.float32)

    def _run(self) -> float:
        output, self._h, self._c = self._session.run(
            None, {"input": self._window, "h": self._h, "c": self._c}
        )
        self._window[0, :CONTEXT_SAMPLES] = self._window[0, -CONTEXT_SAMPLES:]
        self._filled = 0
        return float(output.reshape(-1)[0])
