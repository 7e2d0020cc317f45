"""Speech whose words and their times are known: eSpeak NG, in this process, at 16 kHz.

eSpeak NG tells at which sample each word begins. It is the wheel `espeakng-loader` of the extra `bench`. The
benchmark and the training of the micro-Whisper draw from the same vocabulary. No two of its words sound
alike, and eSpeak NG speaks no pair of them as one word (as it does "of the").
"""

from __future__ import annotations

import ctypes
import zlib
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from emi_live.resample import StreamingResampler
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "ACCENTS",
    "HELD_OUT_VOICES",
    "SAMPLE_RATE_HZ",
    "VOCABULARY",
    "VOICES",
    "SpeechUnavailableError",
    "Synthesizer",
    "SyntheticUtterance",
    "SyntheticWord",
    "draw_sentence",
    "is_held_out",
    "monologue",
    "to_16_khz",
]

_SUBJECTS: Final = ("i", "you", "we", "they")
_BE: Final = {"i": "am", "you": "are", "we": "are", "they": "are"}
_ADVERBS: Final = ("always", "never", "now", "today")
_VERBS: Final = ("love", "hate", "need", "want", "help", "lose", "stop")
_ALONE: Final = ("win", "laugh", "cry", "try", "wait")
_FEELINGS: Final = ("happy", "sorry", "sad", "proud", "afraid", "calm", "tired", "excited", "hurt")
_PRAISE: Final = ("great", "amazing", "funny", "brave")
_OBJECTS: Final = ("friend", "game", "story", "music", "pain", "people")
_NUMBERS: Final = ("one", "two", "three", "five", "seven", "nine", "ten")
_FUNCTION: Final = ("the", "and", "but", "not", "so", "very", "like", "my", "please", "yes", "again")

VOCABULARY: Final[tuple[str, ...]] = tuple(
    sorted(
        {*_SUBJECTS, *_BE.values(), *_ADVERBS, *_VERBS, *_ALONE, *_FEELINGS, *_PRAISE, *_OBJECTS, *_NUMBERS}
        | {*_FUNCTION, "feel"}
    )
)

_RANDOM_SHARE: Final = 0.5  # of the sentences: words in any order, because grammar alone would be memorised
_RANDOM_WORDS: Final = (1, 9)

# eSpeak NG's voices of English, and its variants of the speaker; any accent goes with any variant.
ACCENTS: Final = (
    "en-us",
    "en",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-us-nyc",
)
_VARIANTS: Final = (
    *("m1", "m2", "m3", "m5", "m6", "m7", "f1", "f2", "f4", "f5", "Alex", "Alicia", "Andrea", "Annie"),
    *("Gene", "Lee", "Marco", "Mario", "Michael", "adam", "anika", "belinda", "boris", "caleb", "david"),
    *("edward", "grandpa", "ian", "john", "max", "paul", "robert", "shelby", "travis", "victor", "zac"),
)
_HELD_OUT_VARIANTS: Final = ("m4", "f3", "Mike", "linda", "benjamin", "steph")
VOICES: Final[tuple[str, ...]] = tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in _VARIANTS)
HELD_OUT_VOICES: Final[tuple[str, ...]] = tuple(
    f"{accent}+{variant}" for accent in ACCENTS for variant in _HELD_OUT_VARIANTS
)
SAMPLE_RATE_HZ: Final = 16_000
RATES_WPM: Final = (120, 220)  # of a monologue's utterances
PITCHES: Final = (30, 70)
# From eSpeak NG's speak_lib.h.
_SYNCHRONOUS: Final = 2
_UTF8_WITH_END_PAUSE: Final = 1 | 0x1000
_BY_CHARACTER: Final = 1
_PHONEME_EVENTS: Final = 1
_QUIET: Final = 0.01  # of the peak: below it an utterance has ended
_TAIL_S: Final = 0.01


def draw_sentence(rng: np.random.Generator) -> tuple[str, ...]:
    """A sentence of 1 to 12 words: half of the sentences by a small grammar, half in any order."""
    if rng.random() < _RANDOM_SHARE:
        count = int(rng.integers(_RANDOM_WORDS[0], _RANDOM_WORDS[1] + 1))
        return tuple(VOCABULARY[index] for index in rng.integers(len(VOCABULARY), size=count))
    words = _clause(rng)
    if rng.random() < 0.3:
        words += [_one(rng, ("and", "but", "so")), *_clause(rng)]
    if rng.random() < 0.2:
        words.append(_one(rng, ("please", "again", "now", "today")))
    if rng.random() < 0.1:
        words.insert(0, "yes")
    return tuple(words)


def is_held_out(words: tuple[str, ...]) -> bool:
    """Whether a sentence is one of the tenth that is not used in training."""
    return zlib.crc32(" ".join(words).encode()) % 10 == 0


def _clause(rng: np.random.Generator) -> list[str]:
    who = _one(rng, _SUBJECTS)
    kind = int(rng.integers(5))
    if kind == 0:
        return [who, _BE[who], *_maybe(rng, ("so", "very", "not")), _one(rng, _FEELINGS)]
    if kind == 1:
        return [who, *_maybe(rng, _ADVERBS[:2]), "feel", *_maybe(rng, ("so", "very")), _one(rng, _FEELINGS)]
    if kind == 2:
        return [who, *_maybe(rng, _ADVERBS[:2]), _one(rng, _VERBS), *_thing(rng)]
    if kind == 3:
        return [who, _one(rng, _ALONE), *_maybe(rng, ("again", "now")), "like", *_thing(rng)]
    return [who, _one(rng, ("need", "want")), _one(rng, _NUMBERS), *_maybe(rng, _PRAISE), _one(rng, _OBJECTS)]


def _thing(rng: np.random.Generator) -> list[str]:
    return [_one(rng, ("the", "my")), *_maybe(rng, _PRAISE), _one(rng, _OBJECTS)]


def _maybe(rng: np.random.Generator, words: tuple[str, ...]) -> list[str]:
    return [_one(rng, words)] if rng.random() < 0.5 else []


def _one(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


_RATE, _PITCH = 1, 3
_END_OF_EVENTS, _WORD, _PHONEME = 0, 1, 7


class SpeechUnavailableError(EmiError, RuntimeError):
    """eSpeak NG is missing, or cannot say the words."""


@dataclass(frozen=True, slots=True)
class SyntheticWord:
    """One word and when it sounds, in seconds from the first sample."""

    text: str
    start_s: float
    end_s: float  # where the next word of the utterance begins, or where the utterance's sound ends


@dataclass(frozen=True, slots=True)
class SyntheticUtterance:
    """Sound and the words in it."""

    samples: NDArray[np.float32]  # (n,), 16 kHz mono, in [-1, 1]
    words: tuple[SyntheticWord, ...]  # in the order of their times
    phonemes: tuple[SyntheticWord, ...] = ()  # likewise, in eSpeak NG's own spelling

    @property
    def text(self) -> str:
        """The words, a space between any two."""
        return " ".join(word.text for word in self.words)


class Synthesizer:
    """Speaks, on one thread at a time, because the library is shared by the process."""

    def __init__(self) -> None:
        """Check that eSpeak NG is installed.

        Raises:
            SpeechUnavailableError: the extra `bench` is not installed, or its library does not load.
        """
        try:
            with closing(_Engine()) as engine:
                self._rate_hz = engine.rate_hz
        except ImportError as error:
            raise SpeechUnavailableError(
                f"eSpeak NG cannot be loaded ({error}): pip install 'emi-live[bench]'"
            ) from error
        except OSError as error:
            raise SpeechUnavailableError(
                f"eSpeak NG's library does not load ({error}): pip install --force-reinstall espeakng-loader"
            ) from error
        if self._rate_hz <= 0:
            raise SpeechUnavailableError(
                "eSpeak NG finds no voices: pip install --force-reinstall espeakng-loader"
            )

    def say(
        self, words: Sequence[str], *, voice: str = "en-us", rate_wpm: int = 170, pitch: int = 50
    ) -> SyntheticUtterance:
        """The words in one breath, without silence after them. The same arguments give the same samples.

        Args:
            words: lower-case words, at least one.
            voice: eSpeak NG's name of an accent, with a variant after a `+`: `en-us+f2`.
            rate_wpm: words a minute, 80 to 450.
            pitch: 0 to 100; 50 is the voice's own.

        Raises:
            SpeechUnavailableError: there is no such voice, or two of the words are spoken as one.
        """
        with closing(_Engine()) as engine:
            samples, starts = engine.speak(" ".join(words), voice, rate_wpm, pitch)
        places = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
        missing = [word for word, place in zip(words, places.tolist(), strict=True) if place not in starts]
        if missing:
            raise SpeechUnavailableError(
                f"eSpeak NG speaks {missing[0]!r} of {' '.join(words)!r} as one word with its neighbour: "
                "its time is not known; choose other words"
            )
        loud = np.flatnonzero(np.abs(samples) > _QUIET * np.abs(samples).max())
        end = min(samples.size, int(loud[-1]) + round(_TAIL_S * self._rate_hz))
        times = [starts[place] / self._rate_hz for place in places.tolist()]
        times.append(end / self._rate_hz)
        spoken = (SyntheticWord(*each) for each in zip(words, times[:-1], times[1:], strict=True))
        return SyntheticUtterance(
            to_16_khz(samples[:end], self._rate_hz), tuple(spoken), self._timed(engine.phonemes, end)
        )

    def _timed(self, phonemes: list[tuple[str, int]], end: int) -> tuple[SyntheticWord, ...]:
        """Each phoneme until the next; eSpeak NG names pauses by an empty string or underscores."""
        edges = [min(sample, end) / self._rate_hz for _, sample in phonemes] + [end / self._rate_hz]
        timed = [SyntheticWord(name, *edges[at : at + 2]) for at, (name, _) in enumerate(phonemes)]
        return tuple(each for each in timed if each.text.strip("_:") and each.end_s > each.start_s)


def monologue(
    seconds: float, seed: int, *, pause_s: tuple[float, float] = (0.3, 1.5), voice: str | None = None
) -> SyntheticUtterance:
    """Sentences of the vocabulary, silence before and after each; the same seed, the same samples.

    Args:
        seconds: length of the sound; after the last sentence that fits it is silent.
        seed: of sentences, voices, rates, pitches and pauses.
        pause_s: least and greatest silence before a sentence.
        voice: one voice for all sentences, at one rate and pitch; by default each sentence has another voice.

    Raises:
        SpeechUnavailableError: the extra `bench` is not installed.
    """
    rng = np.random.default_rng(seed)
    synthesizer = Synthesizer()
    samples = np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)
    words: list[SyntheticWord] = []
    at = 0
    rate_wpm, pitch = _manner(rng)
    while True:
        sentence = draw_sentence(rng)
        speaker = voice
        if speaker is None:
            speaker = VOICES[int(rng.integers(len(VOICES)))]
            rate_wpm, pitch = _manner(rng)
        at += round(float(rng.uniform(*pause_s)) * SAMPLE_RATE_HZ)
        said = synthesizer.say(sentence, voice=speaker, rate_wpm=rate_wpm, pitch=pitch)
        if at + said.samples.size > samples.size:
            return SyntheticUtterance(samples, tuple(words))
        samples[at : at + said.samples.size] = said.samples
        t_s = at / SAMPLE_RATE_HZ
        words += [SyntheticWord(word.text, word.start_s + t_s, word.end_s + t_s) for word in said.words]
        at += said.samples.size


def _manner(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(RATES_WPM[0], RATES_WPM[1] + 1)), int(rng.integers(PITCHES[0], PITCHES[1] + 1))


def to_16_khz(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """The same sound, shape (n,), as live use resamples it."""
    resampler = StreamingResampler(rate_hz)
    blocks = [*resampler.push(samples, 0), *resampler.flush()]
    return np.concatenate([block.samples for block in blocks])


class _Event(ctypes.Structure):
    """speak_lib.h's espeak_EVENT."""

    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * ctypes.sizeof(ctypes.c_void_p)),  # a union; of a phoneme, its name
    ]


class _Engine:
    """eSpeak NG's library for one utterance; its callback fills two lists while it speaks.

    Earlier speech changes the phases, noise and lengths of later speech, and the library cannot reset them
    all. So it is loaded again for each utterance, which takes 3 ms, and its noise is seeded.
    """

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS)
        self._parts: list[NDArray[np.int16]] = []
        self._starts: dict[int, int] = {}  # place in the text, from 0, to sample
        self.phonemes: list[tuple[str, int]] = []  # name, sample
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self._callback = kind(self._take)  # kept, because the library uses it
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def close(self) -> None:
        """Unload the library."""
        self._library.espeak_Terminate()
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(self._library._handle))

    def speak(
        self, text: str, voice: str, rate_wpm: int, pitch: int
    ) -> tuple[NDArray[np.float32], dict[int, int]]:
        """Samples, and the sample at which the word at each place of the text begins."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SpeechUnavailableError(
                f"eSpeak NG has no voice {voice!r}: en-us and en-us+f2 are two it has"
            )
        self._library.espeak_SetParameter(_RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode()
        self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _BY_CHARACTER, 0, _UTF8_WITH_END_PAUSE, None, None
        )
        samples = np.concatenate([np.zeros(0, np.int16), *self._parts]).astype(np.float32)
        if not samples.any():
            raise SpeechUnavailableError(f"eSpeak NG says nothing for {text!r}: give words")
        return samples / np.float32(32_768), self._starts

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while (event := events[index]).type != _END_OF_EVENTS:
            if event.type == _WORD:
                self._starts[event.text_position - 1] = event.sample
            elif event.type == _PHONEME:
                self.phonemes.append((event.id.decode(), event.sample))
            index += 1
        return 0
