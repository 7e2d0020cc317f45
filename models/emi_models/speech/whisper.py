"""Whisper by faster-whisper: a growing utterance is transcribed anew each time its words are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WhisperRecognizer"]

# Without tokenizer.json faster-whisper would fetch one from the network.
FILES: Final = ("model.bin", "config.json", "tokenizer.json")
RATE_HZ: Final = 16_000
PARTIAL_BEAM: Final = 1
FINAL_BEAM: Final = 5

REST_S: Final = 1.0  # of sound behind the last word: too little to be worth, or to survive, a second look


class WhisperRecognizer:
    """Recognises speech with a Whisper model in CTranslate2's format, on the CPU.

    Whisper always looks at 30 s, so each `hypothesis` and `finish` costs about the same, however short the
    utterance. Nothing is carried from one utterance to the next. One thread at a time.
    """

    agreement = 2  # LocalAgreement-2: each hypothesis is made from scratch

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
            from emi_models.speech.whisper_model import OneLookModel
        except ImportError as error:
            raise ModelUnavailableError(
                f"faster-whisper cannot be loaded ({error}): pip install faster-whisper"
            ) from error
        try:
            self._model: Any = OneLookModel(
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
        self._prompt = ""

    @property
    def name(self) -> str:
        """Engine, model folder and quantisation."""
        return self._name

    def begin(self, prompt: str = "") -> None:
        """Start anew; what was not finished is dropped.

        Args:
            prompt: the words said just before, which Whisper continues.
        """
        self._parts = []
        self._prompt = prompt

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1]."""
        self._parts.append(samples.astype(np.float32))

    def hypothesis(self) -> Hypothesis:
        """The words so far, by greedy search; all of them may still change."""
        return self._transcribe(PARTIAL_BEAM)

    def finish(self) -> Hypothesis:
        """The words of all that was accepted, by beam search."""
        heard = self._transcribe(FINAL_BEAM)
        self._parts = []
        return heard

    def forget(self) -> None:
        """Drop what was accepted; nothing else is ever kept."""
        self.begin()

    def close(self) -> None:
        """Release the model."""
        self._parts = []
        self._model = None

    def _transcribe(self, beam: int) -> Hypothesis:
        if not self._parts:
            return Hypothesis()
        samples = np.concatenate(self._parts)
        self._parts = [samples]
        found, _ = self._model.transcribe(
            samples,
            language=self._language,
            beam_size=beam,
            temperature=0.0,  # its fallback to sampling is not deterministic and multiplies the time
            initial_prompt=self._prompt or None,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,  # the voice gate has done it
            # What these would skip is seen and counted by `Guards`.
            no_speech_threshold=None,
            log_prob_threshold=None,
            compression_ratio_threshold=None,
        )
        end_s = samples.size / RATE_HZ
        segments: list[Any] = []
        with self._model.one_look(segments, end_s - REST_S):
            for segment in found:
                segments.append(segment)  # one by one: what was found so far decides on going on
        return Hypothesis(
            tuple(
                Segment(
                    _words(segment, end_s),
                    complete=index + 1 < len(segments) or segment.end <= end_s - REST_S,
                    no_speech=float(segment.no_speech_prob),
                    log_probability=float(segment.avg_logprob),
                    compression=float(segment.compression_ratio),
                )
                for index, segment in enumerate(segments)
            )
        )


def _words(segment: Any, end_s: float) -> tuple[RecognizedWord, ...]:
    return tuple(
        RecognizedWord(
            text, float(min(word.start, end_s)), float(min(word.end, end_s)), float(word.probability)
        )
        for word in segment.words or ()
        if (text := word.word.strip())
    )
