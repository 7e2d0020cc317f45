"""Whisper on CTranslate2: one hypothesis of all the sound in the window, computed only as far as it reaches.

Whisper's encoder was trained on 30 s of sound, and other programs always give it 30 s, mostly padding. Here
it gets the speech and about 4 s of padding: the same words for a fraction of the work. Without any padding it
repeats itself without end. The measurements are in docs/decisions/0025-whisper.md.
"""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.speech import AUTO, LANGUAGES, WITHOUT_SPACES, check_language
from emi_models.speech.agreement import EDGES
from emi_models.speech.log_mel import FRAMES_PER_S, MAX_FRAMES, LogMel
from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["LanguageGuess", "WhisperRecognizer"]

FILES: Final = ("model.bin", "config.json", "tokenizer.json")
MARGIN_FRAMES: Final = 4 * FRAMES_PER_S  # of silence behind the sound
SECOND_MARGIN_FRAMES: Final = 10 * FRAMES_PER_S  # when the decoder repeats itself
WINDOW_STEP: Final = 2 * FRAMES_PER_S  # windows have a few fixed lengths: multiples of 2 s
LEAST_FRAMES: Final = 10  # less sound has no words
STEP_S: Final = 0.02  # of the alignment: the encoder halves the frame rate
FREE_TOKENS: Final = 10  # a hypothesis may have so many tokens,
TOKENS_PER_S: Final = 7  # and so many for each second of sound, more than people say
MOST_TOKENS: Final = 448  # of prompt and text together: the decoder has no more positions
PROMPT_TOKENS: Final = 100


class WhisperRecognizer:
    """Recognises speech with a Whisper model in CTranslate2's format, on the CPU.

    It holds the log-mel frames of the utterance, not its samples. Each hypothesis is made from scratch: words
    that are certain already, given to the decoder as the beginning of its answer, saved no time and made more
    errors. The search is greedy, since a beam of 5 was not better. Nothing is carried from one utterance to
    the next but the guess of the language. One thread at a time.
    """

    agreement = 2  # LocalAgreement-2: each hypothesis is made from scratch

    def __init__(
        self,
        folder: str | Path,
        *,
        language: str = "en",
        translate: bool = False,
        compute_type: str = "int8",
        threads: int = 1,
    ) -> None:
        """Load the model from a folder; nothing is fetched.

        Args:
            folder: model.bin, config.json, tokenizer.json and a vocabulary.
            language: its code, or `auto`; English-only models take `en` alone.
            translate: write English, whatever the language is.
            compute_type: CTranslate2's name of a quantisation.
            threads: CPU threads of one hypothesis.

        Raises:
            ValueError: `language` is not a code of `LANGUAGES`.
            ModelUnavailableError: a file is missing, CTranslate2 is not installed, or the model does not know
                the language or cannot translate.
            ModelIntegrityError: CTranslate2 cannot use the files.
        """
        folder = Path(folder)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ModelUnavailableError(
                f"{folder} lacks {', '.join(missing)} of a Whisper model: run `emi models pull`, "
                "or choose another with --set speech.backend=pocketsphinx"
            )
        check_language(language)
        try:
            import ctranslate2
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ModelUnavailableError(
                f"Whisper cannot be run ({error}): pip install ctranslate2 tokenizers"
            ) from error
        try:
            self._model: Any = ctranslate2.models.Whisper(
                str(folder), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
            )
        except (RuntimeError, ValueError) as error:
            raise ModelIntegrityError(
                f"{folder} cannot be used with compute type {compute_type!r} ({error}): "
                "fetch it again with `emi models pull`, or --set speech.compute_type=default"
            ) from error
        multilingual: bool = self._model.is_multilingual
        if not multilingual and (language != "en" or translate):
            raise ModelUnavailableError(
                f"{folder.name} knows English only: choose another, such as --set speech.model=base, "
                "or leave speech.language and speech.translate as they are by default"
            )
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._tokens = _Tokens(tokenizer, multilingual=multilingual, translate=translate)
        except Exception as error:  # the class that the tokenizers library raises
            raise ModelIntegrityError(
                f"{folder / 'tokenizer.json'} cannot be used ({error}): fetch it again with `emi models pull`"
            ) from error
        if multilingual and language != AUTO and not self._tokens.know(language):
            raise ModelUnavailableError(
                f"{folder.name} does not know {LANGUAGES[language]} (speech.language={language}): choose "
                "another model with --set speech.model, such as large-v3-turbo, or another language"
            )
        self._as_array = ctranslate2.StorageView.from_array
        self._guess = LanguageGuess(language) if multilingual else None
        self._mel = LogMel(self._model.n_mels)
        self._prompt: list[int] = []
        task = " to English" if translate else ""
        spoken = f", {language}{task}" if (language, translate) != ("en", False) else ""
        self._name = f"Whisper {folder.name.removeprefix('whisper-')} ({compute_type}{spoken})"

    @property
    def name(self) -> str:
        """Model folder and quantisation; language and task, if they are not the transcription of English."""
        return self._name

    def begin(self, prompt: str = "") -> None:
        """Start again; what was not finished is dropped.

        Args:
            prompt: the words said just before, which Whisper continues; none at the start of an utterance.
        """
        self._mel.clear()
        self._prompt = self._tokens.encode(prompt)[-PROMPT_TOKENS:] if prompt else []
        if self._guess is not None and not prompt:
            self._guess.begin()

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1].

        Raises:
            ValueError: these make more than 30 s since `begin`.
        """
        self._mel.push(samples)

    def hypothesis(self) -> Hypothesis:
        """The words so far; all of them may still change."""
        return self._recognize(last=False)

    def finish(self) -> Hypothesis:
        """The words of all that was accepted."""
        found = self._recognize(last=True)
        self._mel.clear()
        return found

    def forget(self) -> None:
        """Drop what was accepted, and the guess of the language."""
        if self._guess is not None:
            self._guess.forget()
        self.begin()

    def close(self) -> None:
        """Release the model."""
        self._mel.clear()
        self._model = None

    def _recognize(self, *, last: bool) -> Hypothesis:
        frames = self._mel.frames
        if frames < LEAST_FRAMES:
            return Hypothesis()
        encoded = self._encode(frames + MARGIN_FRAMES)
        language, other = "en", None
        if self._guess is not None:
            if self._guess.wanted(last=last):
                self._guess.take(self._model.detect_language(encoded)[0], frames / FRAMES_PER_S)
            language, other = self._guess.language, self._guess.other
        start = self._tokens.start(language)
        segment, whole = self._decode(encoded, self._prompt, start, frames)
        if not whole:  # it has most likely repeated itself, and a prompt tempts it to do so again
            segment, whole = self._decode(self._encode(frames + SECOND_MARGIN_FRAMES), [], start, frames)
        if not whole:  # its last word was cut off
            segment = replace(segment, words=segment.words[:-1])
        return Hypothesis((segment,) if segment.words else (), language, other)

    def _encode(self, least_frames: int) -> Any:
        window = min(MAX_FRAMES, -(-least_frames // WINDOW_STEP) * WINDOW_STEP)
        return self._model.encode(self._as_array(self._mel.window(window)[np.newaxis]), to_cpu=False)

    def _decode(self, encoded: Any, before: list[int], start: list[int], frames: int) -> tuple[Segment, bool]:
        """The words of the encoded sound after the text before it, and whether they ended by themselves."""
        prompt = [*self._tokens.prompt(before), *start, self._tokens.no_timestamps]
        limit = round(FREE_TOKENS + TOKENS_PER_S * frames / FRAMES_PER_S)
        (found,) = self._model.generate(
            encoded,
            [prompt],
            beam_size=1,
            # CTranslate2 allows half of this, and not more than what the prompt leaves of it.
            max_length=min(MOST_TOKENS, max(2 * limit, limit + len(prompt))),
            return_scores=True,
            return_no_speech_prob=True,
        )
        tokens = [token for token in found.sequences_ids[0] if token < self._tokens.end]
        segment = Segment(
            tuple(self._timed(encoded, start, tokens, frames)) if tokens else (),
            no_speech=float(found.no_speech_prob),
            # The mean, as OpenAI takes it, is over the end of the text too.
            log_probability=float(found.scores[0]) * len(tokens) / (len(tokens) + 1),
        )
        return segment, len(tokens) < limit

    def _timed(
        self, encoded: Any, start: list[int], tokens: list[int], frames: int
    ) -> Iterator[RecognizedWord]:
        """Words with their times, by the path of least cost through the attention to the sound."""
        (aligned,) = self._model.align(encoded, start, [tokens], [frames], median_filter_width=7)
        token_of, step_of = np.array(aligned.alignments).T
        begins = step_of[np.diff(token_of, prepend=-1) > 0] * STEP_S  # of each token, and of the end
        end_s = frames / FRAMES_PER_S
        at = 0
        for text, count in self._tokens.words(tokens):
            first, at = at, at + count
            if text:
                yield RecognizedWord(
                    text,
                    min(float(begins[first]), end_s),
                    min(float(begins[at]), end_s),
                    float(np.mean(aligned.text_token_probs[first:at])),
                )


class _Tokens:
    """What Whisper's tokens mean."""

    def __init__(self, tokenizer: Any, *, multilingual: bool, translate: bool) -> None:
        self._tokenizer = tokenizer
        self._multilingual = multilingual
        self._task = "translate" if translate else "transcribe"
        self._spaces = True
        self.end = self._id("endoftext")
        self.no_timestamps = self._id("notimestamps")

    def _id(self, name: str) -> int:
        token = self._tokenizer.token_to_id(f"<|{name}|>")
        if token is None:
            raise ValueError(f"it has no token <|{name}|>")
        return int(token)

    def know(self, language: str) -> bool:
        """Whether there is a token for the language."""
        return self._tokenizer.token_to_id(f"<|{language}|>") is not None

    def start(self, language: str) -> list[int]:
        """The tokens that say what is wanted."""
        self._spaces = self._task == "translate" or language not in WITHOUT_SPACES
        names = [language, self._task] if self._multilingual else []
        return [self._id(name) for name in ("startoftranscript", *names)]

    def prompt(self, tokens: list[int]) -> list[int]:
        """The tokens of the text before, and the one that tells so."""
        return [self._id("startofprev"), *tokens] if tokens else []

    def encode(self, text: str) -> list[int]:
        """The tokens of words that are separated by spaces."""
        text = f" {text}" if self._spaces else text.replace(" ", "")
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def words(self, tokens: list[int]) -> list[tuple[str, int]]:
        """The words of a text, and how many tokens each has; punctuation belongs to the word next to it."""
        words: list[tuple[str, int]] = []
        pending: list[int] = []  # tokens of a character that is not complete
        opening = False
        for index, token in enumerate(tokens):
            pending.append(token)
            text = self._tokenizer.decode(pending)
            if "\ufffd" in text and index + 1 < len(tokens):
                continue
            bare, starts = text.strip(), text.startswith(" ") or not self._spaces
            closing = bool(bare) and bare not in OPENING and PUNCTUATION.issuperset(bare)
            if words and (opening or closing or not starts):
                words[-1] = (words[-1][0] + bare, words[-1][1] + len(pending))
            else:
                words.append((bare, len(pending)))
            opening = words[-1][0] in OPENING
            pending = []
        return words


PUNCTUATION: Final = frozenset(EDGES) - frozenset(string.whitespace)
OPENING: Final = frozenset({'"', "'", "(", "[", "{", "-", "$", "#", "¿", "¡", "\u201c", "\u2018", "£", "€"})

LANGUAGE_S: Final = 4.0  # of sound, after which an utterance's language is settled
LEAST_S: Final = 3.0  # of sound, before another language than the one that was set is reported
SURE: Final = 0.6  # probability at which a language replaces that of the utterance before
LIKELY: Final = 0.8  # probability at which another language than the one that was set is reported


class LanguageGuess:
    """Which language is spoken, from what a multilingual model makes of each utterance. Pure."""

    def __init__(self, setting: str) -> None:
        """`setting`: a code, which stays whatever is spoken, or `auto`."""
        self._setting = setting
        self.forget()

    def forget(self) -> None:
        """Start again, as after loading."""
        self.language = "en" if self._setting == AUTO else self._setting
        self.other: str | None = None  # a language that is spoken in place of the one that was set
        self._guessed = False
        self.begin()

    def begin(self) -> None:
        """An utterance begins."""
        self._open = self._setting == AUTO

    def wanted(self, *, last: bool) -> bool:
        """Whether the model is to be asked: each time at the start of an utterance, or once at its end."""
        return self._open or (last and self._setting != AUTO)

    def take(self, probabilities: Sequence[tuple[str, float]], seconds: float) -> None:
        """Note what the model says of so many seconds of sound.

        Args:
            probabilities: tokens such as `<|en|>` and how probable each is, the most probable first.
            seconds: how much sound that is.
        """
        token, probability = probabilities[0]
        code = token.strip("<|>")
        if self._setting != AUTO:
            sure = probability >= LIKELY and seconds >= LEAST_S
            self.other = code if sure and code != self._setting else None
            return
        if probability >= SURE or not self._guessed:
            self.language = code
            self._guessed = True
        self._open = seconds < LANGUAGE_S
