"""Whisper by faster-whisper: a growing utterance is transcribed anew each time its words are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.speech.recognizer import RecognizedWord

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WhisperRecognizer"]

# Without tokenizer.json faster-whisper would fetch one from the network.
FILES: Final = ("model.bin", "config.json", "tokenizer.json")
PARTIAL_BEAM: Final = 1
FINAL_BEAM: Final = 5

# Whisper's own guards against words in silence and against loops, at OpenAI's values.
NO_SPEECH: Final = 0.6
LEAST_LOG_PROBABILITY: Final = -1.0
MOST_COMPRESSION: Final = 2.4


class WhisperRecognizer:
    """Recognises speech with a Whisper model in CTranslate2's format, on the CPU.

    Whisper always looks at 30 s, so each `hypothesis` and `finish` costs about the same, however short the
    utterance. Nothing is carried from one utterance to the next. One thread at a time.
    """

    def __init__(
        self, folder: str | Path, *, language: str = "en", compute_type: str = "int8", threads: int = 1
    ) -> None:
        """Load the model from a folder; nothing is fetched.

        Args:
            folder: model.bin, config.json, tokenizer.json and a vocabulary.
            language: its code; English-only models take `en` alone.
            compute_type: CTranslate2's name of a quantisation.
            threads: CPU threads of one transcription.

        Raises:
            ModelUnavailableError: a file is missing, or faster-whisper is not installed.
            ModelIntegrityError: CTranslate2 cannot use the files.
        """
        folder = Path(folder)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ModelUnavailableError(
                f"{folder} lacks {', '.join(missing)} of a Whisper model: run `emi models pull`, "
                "or choose another with --set speech.backend=pocketsphinx"
            )
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ModelUnavailableError(
                f"faster-whisper cannot be loaded ({error}): pip install faster-whisper"
            ) from error
        try:
            self._model: Any = WhisperModel(
                str(folder),
                device="cpu",
                compute_type=compute_type,
                cpu_threads=threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelIntegrityError(
                f"{folder} cannot be used with compute type {compute_type!r} ({error}): "
                "fetch it again with `emi models pull`, or --set speech.compute_type=default"
            ) from error
        self._language = language
        self._name = f"faster-whisper {folder.name} ({compute_type})"
        self._parts: list[NDArray[np.float32]] = []

    @property
    def name(self) -> str:
        """Engine, model folder and quantisation."""
        return self._name

    def begin(self) -> None:
        """Start an utterance; one that was not finished is dropped."""
        self._parts = []

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1]."""
        self._parts.append(samples.astype(np.float32))

    def hypothesis(self) -> list[RecognizedWord]:
        """The words so far, by greedy search; all of them may still change."""
        return self._transcribe(PARTIAL_BEAM)

    def finish(self) -> list[RecognizedWord]:
        """The words of the whole utterance, by beam search."""
        words = self._transcribe(FINAL_BEAM)
        self._parts = []
        return words

    def forget(self) -> None:
        """Drop the utterance under way; nothing else is ever kept."""
        self._parts = []

    def close(self) -> None:
        """Release the model."""
        self._parts = []
        self._model = None

    def _transcribe(self, beam: int) -> list[RecognizedWord]:
        if not self._parts:
            return []
        samples = np.concatenate(self._parts)
        self._parts = [samples]
        segments, _ = self._model.transcribe(
            samples,
            language=self._language,
            beam_size=beam,
            temperature=0.0,  # its fallback to sampling is not deterministic and multiplies the time
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,  # the voice gate has done it
            no_speech_threshold=NO_SPEECH,
            log_prob_threshold=LEAST_LOG_PROBABILITY,
            compression_ratio_threshold=MOST_COMPRESSION,
        )
        end_s = samples.size / 16_000
        return [
            RecognizedWord(
                text, float(min(word.start, end_s)), float(min(word.end, end_s)), float(word.probability)
            )
            for segment in segments
            if _is_speech(segment)
            for word in segment.words or ()
            if (text := word.word.strip())
        ]


def _is_speech(segment: Any) -> bool:
    """Whether a segment passes the guards; without a fallback faster-whisper yields those that do not."""
    silent = segment.no_speech_prob > NO_SPEECH and segment.avg_logprob < LEAST_LOG_PROBABILITY
    return not silent and segment.compression_ratio <= MOST_COMPRESSION
