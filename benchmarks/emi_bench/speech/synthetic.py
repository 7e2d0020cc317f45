"""Speech whose words and their times are known: eSpeak NG, in this process, at 16 kHz.

eSpeak NG tells at which sample each word begins. It is a wheel, `espeakng-loader`, of the extra `bench`.
"""

from __future__ import annotations

import ctypes
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from emi_bench.speech.vocabulary import VOICES, draw_sentence
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SAMPLE_RATE_HZ", "SpeechUnavailableError", "SpokenWord", "Synthesizer", "Utterance", "monologue"]

SAMPLE_RATE_HZ: Final = 16_000
RATES_WPM: Final = (120, 220)  # of a monologue's utterances
PITCHES: Final = (30, 70)

# From eSpeak NG's speak_lib.h.
_SYNCHRONOUS: Final = 2
_UTF8_WITH_END_PAUSE: Final = 1 | 0x1000
_BY_CHARACTER: Final = 1
_RATE, _PITCH = 1, 3
_END_OF_EVENTS, _WORD, _PHONEME = 0, 1, 7
_PHONEME_EVENTS: Final = 1

_QUIET: Final = 0.01  # of the peak: below it an utterance has ended
_TAIL_S: Final = 0.01


class SpeechUnavailableError(EmiError, RuntimeError):
    """eSpeak NG is missing, or cannot say what it was asked to."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """One word and when it sounds, in seconds from the first sample."""

    text: str
    start_s: float
    end_s: float  # where the next word of the utterance begins, or where the utterance's sound ends


@dataclass(frozen=True, slots=True)
class Utterance:
    """Sound and what is said in it."""

    samples: NDArray[np.float32]  # (n,), 16 kHz mono, in [-1, 1]
    words: tuple[SpokenWord, ...]  # in the order of their times
    phonemes: tuple[SpokenWord, ...] = ()  # likewise, in eSpeak NG's own spelling

    @property
    def text(self) -> str:
        """The words, a space between any two."""
        return " ".join(word.text for word in self.words)


class Synthesizer:
    """Speaks, on one thread at a time: the library that does it belongs to the process."""

    def __init__(self) -> None:
        """See that eSpeak NG is there.

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
    ) -> Utterance:
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
        spoken = (SpokenWord(*each) for each in zip(words, times[:-1], times[1:], strict=True))
        return Utterance(
            _to_16_khz(samples[:end], self._rate_hz), tuple(spoken), self._timed(engine.phonemes, end)
        )

    def _timed(self, phonemes: list[tuple[str, int]], end: int) -> tuple[SpokenWord, ...]:
        """Each sound until the next; eSpeak NG names pauses by an empty string or underscores."""
        edges = [min(sample, end) / self._rate_hz for _, sample in phonemes] + [end / self._rate_hz]
        timed = [SpokenWord(name, *edges[at : at + 2]) for at, (name, _) in enumerate(phonemes)]
        return tuple(each for each in timed if each.text.strip("_:") and each.end_s > each.start_s)


def monologue(
    seconds: float, seed: int, *, pause_s: tuple[float, float] = (0.3, 1.5), voice: str | None = None
) -> Utterance:
    """Sentences of the vocabulary, silence before and after each; the same seed, the same samples.

    Args:
        seconds: length of the sound; what remains after the last sentence that fits is silence.
        seed: of sentences, voices, rates, pitches and pauses.
        pause_s: least and greatest silence before a sentence.
        voice: one that says all, at one rate and pitch; by default another voice says each sentence.

    Raises:
        SpeechUnavailableError: the extra `bench` is not installed.
    """
    rng = np.random.default_rng(seed)
    synthesizer = Synthesizer()
    samples = np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)
    words: list[SpokenWord] = []
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
            return Utterance(samples, tuple(words))
        samples[at : at + said.samples.size] = said.samples
        t_s = at / SAMPLE_RATE_HZ
        words += [SpokenWord(word.text, word.start_s + t_s, word.end_s + t_s) for word in said.words]
        at += said.samples.size


def _manner(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(RATES_WPM[0], RATES_WPM[1] + 1)), int(rng.integers(PITCHES[0], PITCHES[1] + 1))


def _to_16_khz(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    import torch
    from torchaudio.functional import resample

    at_16_khz: NDArray[np.float32] = resample(torch.from_numpy(samples), rate_hz, SAMPLE_RATE_HZ).numpy()
    return at_16_khz


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

    What the library has said shifts the phases, noise and so the lengths of what it says next, and nothing in
    it resets them all. So it is loaded anew each time, which takes 3 ms, and its noise is seeded.
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
        self._callback = kind(self._take)  # kept, for the library holds it
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
