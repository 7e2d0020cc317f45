"""Whisper by faster-whisper, and the guards against words that nobody said.

A growing utterance is transcribed again each time its words are asked for. Whisper was trained on
subtitles: in silence it may write "Thanks for watching!", or repeat itself without end. Each guard looks at
one sign of such a hallucination and counts what it drops; they are independent of each other. The sixth,
that no prompt is carried from one utterance to the next, is in `IncrementalRecognizer`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.speech.agreement import spoken_form
from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["GUARDS", "GuardSettings", "Guards", "VoiceMap", "WhisperRecognizer"]

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
        """Start again; what was not finished is dropped.

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


GUARDS: Final = ("voice", "no_speech", "log_probability", "compression", "repetition", "carry_over")
LONGEST_LOOP: Final = 5  # words
LOOP_TURNS: Final = 3  # of a phrase
WORD_TURNS: Final = 4  # of a single word: "no, no, no" is what people say
VOICE_MARGIN_S: Final = 0.3  # recognisers are that wrong about when a word was


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Thresholds, at OpenAI's values; None switches a guard off."""

    no_speech: float | None = 0.6  # a segment more probably silent than this is dropped
    log_probability: (
        float | None
    ) = -1.0  # a segment less probable than this, mean over its tokens, is dropped
    compression: float | None = 2.4  # a segment that compresses better than this is dropped


class VoiceMap(Protocol):
    """Where the voice gate heard somebody."""

    def any_between(self, start_s: float, end_s: float) -> bool:
        """Whether there was voice in that span."""
        ...


class Guards:
    """Five guards over each hypothesis. `dropped` counts words by guard, every time that one is dropped."""

    def __init__(self, settings: GuardSettings | None = None) -> None:
        self._settings = settings or GuardSettings()
        self.dropped: Counter[str] = Counter()

    def passed(
        self, hypothesis: Hypothesis, voice: VoiceMap, said: int = 0
    ) -> list[tuple[int, RecognizedWord]]:
        """The words that pass, each with its place in the hypothesis; a segment fails or passes as a whole.

        Args:
            hypothesis: what was heard.
            voice: by the same clock.
            said: the first so many words are certain already, and not judged.
        """
        words: list[tuple[int, RecognizedWord]] = []
        place = 0
        for segment in hypothesis.segments:
            guard = self._against(segment)
            for word in segment.words:
                if place >= said:
                    why = guard or (None if _voiced(word, voice) else "voice")
                    if why is None:
                        words.append((place, word))
                    else:
                        self.dropped[why] += 1
                else:
                    words.append((place, word))
                place += 1
        looping = loops([word.text for _, word in words])
        kept = []
        for index, (place, word) in enumerate(words):
            if place < said:
                continue
            if index in looping:
                self.dropped["repetition"] += 1
            else:
                kept.append((place, word))
        return kept

    def _against(self, segment: Segment) -> str | None:
        limits = self._settings
        if not segment.words:
            return None
        if _above(segment.no_speech, limits.no_speech):
            return "no_speech"
        if (
            segment.log_probability is not None
            and limits.log_probability is not None
            and segment.log_probability < limits.log_probability
        ):
            return "log_probability"
        return "compression" if _above(segment.compression, limits.compression) else None


def loops(texts: Sequence[str]) -> set[int]:
    """Which words repeat a loop, by their place; its first turn is not among them.

    A loop is a phrase of 2 to 5 words said 3 times in a row, or one word said 4 times.
    """
    kept = [(place, spoken_form(text)) for place, text in enumerate(texts)]
    for size in range(1, LONGEST_LOOP + 1):
        least = WORD_TURNS if size == 1 else LOOP_TURNS
        start = 0
        while start + least * size <= len(kept):
            turns = _turns([form for _, form in kept[start:]], size)
            if turns >= least:
                del kept[start + size : start + turns * size]
            start += 1
    return set(range(len(texts))) - {place for place, _ in kept}


def _voiced(word: RecognizedWord, voice: VoiceMap) -> bool:
    return voice.any_between(word.start_s - VOICE_MARGIN_S, word.end_s + VOICE_MARGIN_S)


def _turns(texts: Sequence[str], size: int) -> int:
    """How often the first `size` texts are said in a row."""
    turns = 1
    while list(texts[turns * size : (turns + 1) * size]) == list(texts[:size]):
        turns += 1
    return turns


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
