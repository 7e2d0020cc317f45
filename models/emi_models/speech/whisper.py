"""Whisper on CTranslate2: each hypothesis covers all audio since `begin`, with little padding.

Whisper's encoder was trained on 30 s of audio, and other programs always give it 30 s, mostly padding. Here
it gets the speech and about 4 s of padding: the same words for a fraction of the work. Without any padding
it repeats itself endlessly. The measurements are in docs/decisions/0025-whisper.md.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.speech import AUTO, LANGUAGES, WITHOUT_SPACES, check_language
from emi_models.speech.agreement import EDGES
from emi_models.speech.log_mel import FRAMES_PER_S, MAX_FRAMES, LogMel
from emi_models.speech.recognizer import Batching, Hypothesis, RecognizedWord, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from emi_models.speech.recognizer import Utterance

__all__ = ["LanguageGuess", "WhisperRecognizer"]

FILES: Final = ("model.bin", "config.json", "tokenizer.json")
MARGIN_FRAMES: Final = 4 * FRAMES_PER_S  # of silence behind the speech
SECOND_MARGIN_FRAMES: Final = 10 * FRAMES_PER_S  # when the decoder repeats itself
WINDOW_STEP: Final = 2 * FRAMES_PER_S  # windows have a few fixed lengths: multiples of 2 s
SAMPLES_PER_FRAME: Final = 160
MOST_TOGETHER: Final = 8  # utterances of a call; more would make the first ones wait
LEAST_FRAMES: Final = 10  # shorter audio contains no words
STEP_S: Final = 0.02  # of the alignment: the encoder halves the frame rate
FREE_TOKENS: Final = 10  # a hypothesis may have so many tokens,
TOKENS_PER_S: Final = 7  # and so many for each second of audio, more than people say
MOST_TOKENS: Final = 448  # of prompt and text together: the decoder has no more positions
PROMPT_TOKENS: Final = 100
ENDED_EARLY: Final = -0.5  # mean log probability; most hypotheses below it ended after a few words


@dataclass(slots=True, eq=False)
class _Row:
    """One utterance while it is recognised."""

    mel: LogMel
    prompt: list[int] = field(default_factory=list)
    last: bool = False
    guess: LanguageGuess | None = None
    language: str = "en"
    other: str | None = None
    encoded: Any = None
    segment: Segment | None = None  # None: too short for words

    def hypothesis(self) -> Hypothesis:
        if self.segment is None:
            return Hypothesis()
        return Hypothesis((self.segment,) if self.segment.words else (), self.language, self.other)


class WhisperRecognizer:
    """Recognises speech with a Whisper model in CTranslate2's format.

    It holds the log-mel frames of the utterance, not its samples. Each hypothesis is made from scratch: to
    give the decoder the committed words as the start of its answer saved no time and made more errors. The
    search is greedy, because a beam of 5 was not better. Only the guess of the language is kept from one
    utterance to the next. One thread at a time.
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
        device: str = "cpu",
    ) -> None:
        """Load the model from a folder; nothing is downloaded.

        Args:
            folder: with model.bin, config.json, tokenizer.json and a vocabulary.
            language: its code, or `auto`; English-only models accept only `en`.
            translate: write English for every language.
            compute_type: CTranslate2's name of a quantisation.
            threads: CPU threads for one hypothesis.
            device: cpu, cuda or cuda:N.

        Raises:
            ValueError: `language` is not a code of `LANGUAGES`.
            ModelUnavailableError: a file is missing, CTranslate2 is not installed, the device cannot be used,
                or the model does not know the language or cannot translate.
            ModelIntegrityError: CTranslate2 cannot use the files.
        """
        folder = Path(folder)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ModelUnavailableError(
                f"{folder} lacks {', '.join(missing)} of a Whisper model: run `emi models pull`, "
                "or choose another recogniser with --set speech.backend=pocketsphinx"
            )
        check_language(language)
        try:
            import ctranslate2
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ModelUnavailableError(
                f"Whisper cannot be run ({error}): pip install ctranslate2 tokenizers"
            ) from error
        kind, _, number = device.partition(":")
        try:
            self._model: Any = ctranslate2.models.Whisper(
                str(folder),
                device=kind,
                device_index=int(number or 0),
                compute_type=compute_type,
                inter_threads=1,
                intra_threads=threads,
            )
            if kind != "cpu":  # its libraries are loaded by the first call
                silence = np.zeros((1, self._model.n_mels, WINDOW_STEP), np.float32)
                self._model.encode(ctranslate2.StorageView.from_array(silence), to_cpu=True)
        except (RuntimeError, ValueError) as error:
            if kind != "cpu":
                raise ModelUnavailableError(
                    f"Whisper cannot run on {device} ({error}): see that CTranslate2 finds cuBLAS and cuDNN, "
                    "or choose cpu"
                ) from error
            raise ModelIntegrityError(
                f"{folder} cannot be used with compute type {compute_type!r} ({error}): "
                "fetch it again with `emi models pull`, or --set speech.compute_type=default"
            ) from error
        multilingual: bool = self._model.is_multilingual
        if not multilingual and (language != "en" or translate):
            raise ModelUnavailableError(
                f"{folder.name} knows English only: choose another model, such as --set speech.model=base, "
                "or leave speech.language and speech.translate at their defaults"
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
        self._mels: list[LogMel] = []  # of utterances that are recognised together
        self._prompt: list[int] = []
        task = " to English" if translate else ""
        spoken = f", {language}{task}" if (language, translate) != ("en", False) else ""
        step = WINDOW_STEP * SAMPLES_PER_FRAME
        # With `auto`, the language of a user's last utterance is the first guess for the next one.
        self.batching = None if language == AUTO else Batching(MOST_TOGETHER, step)
        self._on_gpu = kind != "cpu"
        self._name = f"Whisper {folder.name.removeprefix('whisper-')} ({compute_type}{spoken})"

    @property
    def name(self) -> str:
        """Model folder and quantisation; also language and task, unless English is transcribed."""
        return self._name

    def begin(self, prompt: str = "") -> None:
        """Start again; an unfinished utterance is dropped.

        Args:
            prompt: the words before, which Whisper continues; empty at the start of an utterance.
        """
        self._mel.clear()
        self._prompt = self._prompt_of(prompt)
        if self._guess is not None and not prompt:
            self._guess.begin()

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1].

        Raises:
            ValueError: more than 30 s have come since `begin`.
        """
        self._mel.push(samples)

    def hypothesis(self) -> Hypothesis:
        """The words so far; all of them may still change."""
        return self._recognize(last=False)

    def finish(self) -> Hypothesis:
        """The words of all accepted audio."""
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

    def recognize(self, utterances: Sequence[Utterance]) -> list[Hypothesis]:
        """As `BatchRecognizer.recognize`; the language must be set."""
        while len(self._mels) < len(utterances):
            self._mels.append(LogMel(self._model.n_mels))
        rows = []
        for mel, one in zip(self._mels, utterances, strict=False):
            mel.clear()
            mel.push(one.samples)
            guess = None if self._guess is None else LanguageGuess(self._guess.setting)
            rows.append(_Row(mel, self._prompt_of(one.prompt), one.last, guess))
        return self._answer(rows)

    def _recognize(self, *, last: bool) -> Hypothesis:
        return self._answer([_Row(self._mel, self._prompt, last, self._guess)])[0]

    def _prompt_of(self, text: str) -> list[int]:
        return self._tokens.encode(text)[-PROMPT_TOKENS:] if text else []

    def _answer(self, rows: Sequence[_Row]) -> list[Hypothesis]:
        """The words of each row. Rows with equally long windows and prompts are decoded in one call."""
        groups: dict[tuple[int, int, str], list[_Row]] = {}
        for row in rows:
            frames = row.mel.frames
            if frames < LEAST_FRAMES:
                continue
            window = _window(frames + MARGIN_FRAMES)
            row.encoded = self._encode(row.mel, window, joined=len(rows) > 1)
            if row.guess is not None:
                if row.guess.wanted(last=row.last):
                    row.guess.take(self._model.detect_language(row.encoded)[0], frames / FRAMES_PER_S)
                row.language, row.other = row.guess.language, row.guess.other
            groups.setdefault((window, len(row.prompt), row.language), []).append(row)
        for (_, _, language), group in groups.items():
            start = self._tokens.start(language)
            for row, segment in zip(group, self._decode(group, start), strict=True):
                row.segment = self._look_again(row, segment, start)
        return [row.hypothesis() for row in rows]

    def _look_again(self, row: _Row, segment: Segment, start: list[int]) -> Segment:
        """The segment, or a better one where its decoding went wrong."""
        if segment.stopped:  # a prompt tempts it to repeat itself
            window = _window(row.mel.frames + SECOND_MARGIN_FRAMES)
            (again,) = self._decode([_Row(row.mel, encoded=self._encode(row.mel, window))], start)
            # With the longer silence, `no_speech` would be too high.
            segment = replace(again, no_speech=segment.no_speech)
        elif row.prompt and _likelihood(segment) < ENDED_EARLY:
            (again,) = self._decode([_Row(row.mel, encoded=row.encoded)], start)
            if not again.stopped and _likelihood(again) > _likelihood(segment):
                segment = replace(again, no_speech=segment.no_speech)
        if segment.stopped:  # its last word was cut off
            segment = replace(segment, words=segment.words[:-1])
        return replace(segment, words=_with_audio(segment.words))

    def _encode(self, mel: LogMel, window: int, *, joined: bool = False) -> Any:
        # One at a time: the encoder is slower with several (docs/decisions/0045). Those that are to be joined
        # come back from a GPU, where NumPy cannot read them.
        sound = self._as_array(mel.window(window)[np.newaxis])
        return self._model.encode(sound, to_cpu=joined and self._on_gpu)

    def _decode(self, rows: Sequence[_Row], start: list[int]) -> list[Segment]:
        """The words of encoded audio; all windows have the same length, and all prompts."""
        encoded = rows[0].encoded
        if len(rows) > 1:
            encoded = self._as_array(np.concatenate([np.asarray(row.encoded) for row in rows]))
        prompts = [[*self._tokens.prompt(row.prompt), *start, self._tokens.no_timestamps] for row in rows]
        limits = [round(FREE_TOKENS + TOKENS_PER_S * row.mel.frames / FRAMES_PER_S) for row in rows]
        most = max(limits)
        answers = self._model.generate(
            encoded,
            prompts,
            beam_size=1,
            # CTranslate2 allows half of this, and at most what the prompt leaves.
            max_length=min(MOST_TOKENS, max(2 * most, most + len(prompts[0]))),
            return_scores=True,
            return_no_speech_prob=True,
        )
        segments = []
        for row, limit, found in zip(rows, limits, answers, strict=True):
            tokens = [token for token in found.sequences_ids[0] if token < self._tokens.end]
            stopped = len(tokens) >= limit
            segments.append(
                Segment(
                    tuple(self._timed(row.encoded, start, tokens[:limit], row.mel.frames)) if tokens else (),
                    no_speech=float(found.no_speech_prob),
                    # As in OpenAI's code, the mean includes the end-of-text token.
                    log_probability=float(found.scores[0]) * len(tokens) / (len(tokens) + 1),
                    stopped=stopped,
                )
            )
        return segments

    def _timed(
        self, encoded: Any, start: list[int], tokens: list[int], frames: int
    ) -> Iterator[RecognizedWord]:
        """Words with their times, by the path of least cost through the cross-attention."""
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


def _window(least_frames: int) -> int:
    """The length of a window, in frames, that has at least so many."""
    return min(MAX_FRAMES, -(-least_frames // WINDOW_STEP) * WINDOW_STEP)


def _with_audio(words: tuple[RecognizedWord, ...]) -> tuple[RecognizedWord, ...]:
    """The words without those at the end that last no time: they were guessed before they were spoken."""
    count = len(words)
    while count and words[count - 1].end_s <= words[count - 1].start_s:
        count -= 1
    return words[:count]


def _likelihood(segment: Segment) -> float:
    return segment.log_probability or 0.0


class _Tokens:
    """Whisper's tokens: special ones by name, prompts, and the words of a text."""

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
        """The tokens that set language and task."""
        self._spaces = self._task == "translate" or language not in WITHOUT_SPACES
        names = [language, self._task] if self._multilingual else []
        return [self._id(name) for name in ("startoftranscript", *names)]

    def prompt(self, tokens: list[int]) -> list[int]:
        """The tokens of the text before, after the special token for it."""
        return [self._id("startofprev"), *tokens] if tokens else []

    def encode(self, text: str) -> list[int]:
        """The tokens of words that are separated by spaces."""
        text = f" {text}" if self._spaces else text.replace(" ", "")
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def words(self, tokens: list[int]) -> list[tuple[str, int]]:
        """Words and how many tokens each has; punctuation belongs to the word next to it."""
        words: list[tuple[str, int]] = []
        pending: list[int] = []  # tokens of an incomplete character
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

LANGUAGE_S: Final = 4.0  # after so much audio, an utterance's language is no longer changed
LEAST_S: Final = 3.0  # of audio, before a language other than the set one is reported
SURE: Final = 0.6  # probability from which a language replaces that of the utterance before
LIKELY: Final = 0.8  # probability from which a language other than the set one is reported


class LanguageGuess:
    """Which language is spoken, from a multilingual model's probabilities for each utterance. Pure."""

    def __init__(self, setting: str) -> None:
        """`setting`: `auto`, or a code that is used for all speech."""
        self.setting = setting
        self.forget()

    def forget(self) -> None:
        """Return to the state after loading."""
        self.language = "en" if self.setting == AUTO else self.setting
        self.other: str | None = None  # the language that is spoken, if another one was set
        self._guessed = False
        self.begin()

    def begin(self) -> None:
        """An utterance begins."""
        self._open = self.setting == AUTO

    def wanted(self, *, last: bool) -> bool:
        """Whether to ask the model: with `auto` in the first 4 s of an utterance, else once at its end."""
        return self._open or (last and self.setting != AUTO)

    def take(self, probabilities: Sequence[tuple[str, float]], seconds: float) -> None:
        """Take the model's probabilities for `seconds` of audio.

        Args:
            probabilities: tokens such as `<|en|>` with their probabilities, the most probable first.
            seconds: how much audio they are for.
        """
        token, probability = probabilities[0]
        code = token.strip("<|>")
        if self.setting != AUTO:
            sure = probability >= LIKELY and seconds >= LEAST_S
            self.other = code if sure and code != self.setting else None
            return
        if probability >= SURE or not self._guessed:
            self.language = code
            self._guessed = True
        self._open = seconds < LANGUAGE_S
