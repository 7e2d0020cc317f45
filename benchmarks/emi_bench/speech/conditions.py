"""Sounds that ought to give no words, or are hard to hear: made here, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.speech.clips import Clip, SaidWord
from emi_bench.speech.words import spoken

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_bench.speech.synthetic import Utterance

__all__ = ["CONDITIONS", "make_condition"]

RATE_HZ: Final = 16_000
NOISE_RMS: Final = 10 ** (-30 / 20)  # -30 dB of full scale
LONGEST_S: Final = 60.0  # of speech
SEED: Final = 20_260

GERMAN: Final = (
    "ich glaube dass wir morgen fahren können",
    "das wetter war gestern schöner als heute",
    "meine schwester wohnt in einer großen stadt",
    "wir haben lange auf den zug gewartet",
)
FRENCH: Final = (
    "je pense que nous pouvons partir demain",
    "le temps était plus beau hier",
    "ma sœur habite dans une grande ville",
    "nous avons longtemps attendu le train",
)


def make_condition(name: str, seconds: float) -> Clip:
    """The clip of a condition: so many seconds, of speech at most a minute, of other languages a few."""
    return CONDITIONS[name](seconds)


def _silence(seconds: float) -> Clip:
    return _wordless("silence", np.zeros(_size(seconds), np.float32))


def _white(seconds: float) -> Clip:
    return _wordless("white noise, -30 dBFS", _at_rms(_rng().normal(size=_size(seconds))))


def _pink(seconds: float) -> Clip:
    """Power falls with frequency, from 20 Hz on."""
    spectrum = np.fft.rfft(_rng().normal(size=_size(seconds)))
    frequency = np.fft.rfftfreq(_size(seconds), 1 / RATE_HZ)
    return _wordless(
        "pink noise, -30 dBFS", _at_rms(np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 20.0))))
    )


def _music(seconds: float) -> Clip:
    """Chords of decaying harmonics, a bass and a beat, 110 a minute: music-like, not music."""
    rng, beat = _rng(), round(60 / 110 * RATE_HZ)
    samples = np.zeros(_size(seconds) + 4 * beat)
    chords = np.array([[0, 4, 7], [-3, 0, 4], [5, 9, 12], [7, 11, 14]])
    at = np.arange(2 * beat) / RATE_HZ
    for index, start in enumerate(range(0, _size(seconds), beat)):
        notes = [*chords[index // 4 % 4], int(rng.choice(chords[index // 4 % 4])) + 12]
        for note in [*notes, notes[0] - 24]:
            pitch = 261.63 * 2 ** (note / 12)
            for harmonic in range(1, 6):
                tone = np.sin(2 * np.pi * pitch * harmonic * at) * np.exp(-at * (2 + harmonic)) / harmonic
                samples[start : start + at.size] += tone
        knock = rng.normal(size=beat // 4) * np.exp(-np.arange(beat // 4) / (0.02 * RATE_HZ))
        samples[start : start + knock.size] += 2 * knock
    samples = samples[: _size(seconds)]
    return _wordless("music-like", (0.5 * samples / np.abs(samples).max()).astype(np.float32))


def _two_speakers(seconds: float) -> Clip:
    """One is scored; the other, 6 dB softer, speaks at the same time."""
    from emi_bench.speech.synthetic import monologue

    first = monologue(min(seconds, LONGEST_S), SEED, voice="en-us")
    second = monologue(min(seconds, LONGEST_S), SEED + 1, voice="en-us+f2")
    return _said("two speakers at once", first.samples + 0.5 * second.samples, first)


def _telephone(seconds: float) -> Clip:
    """300 to 3400 Hz, sampled at 8 kHz and 8 bits on the way (mu-law)."""
    import torch
    from torchaudio.functional import mu_law_decoding, mu_law_encoding, resample

    from emi_bench.speech.synthetic import monologue

    said = monologue(min(seconds, LONGEST_S), SEED, voice="en-us")
    spectrum = np.fft.rfft(said.samples)
    frequency = np.fft.rfftfreq(said.samples.size, 1 / RATE_HZ)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    band = torch.from_numpy(np.fft.irfft(spectrum, said.samples.size).astype(np.float32))
    coded = mu_law_encoding(resample(band, RATE_HZ, RATE_HZ // 2).clamp(-1, 1), 256)
    heard = resample(mu_law_decoding(coded, 256), RATE_HZ // 2, RATE_HZ).numpy()
    return _said("telephone, 8 kHz", heard, said)


def _clean(seconds: float) -> Clip:
    """What the last two are made of, to hold them against."""
    from emi_bench.speech.synthetic import monologue

    said = monologue(min(seconds, LONGEST_S), SEED, voice="en-us")
    return _said("the same speech, clean", said.samples, said)


def _german(_: float) -> Clip:
    return _foreign("German", "de", GERMAN)


def _french(_: float) -> Clip:
    return _foreign("French", "fr", FRENCH)


def _foreign(name: str, voice: str, sentences: tuple[str, ...]) -> Clip:
    """A language that nobody said would be spoken."""
    from emi_bench.speech.synthetic import Synthesizer

    speaker, pause = Synthesizer(), np.zeros(RATE_HZ, np.float32)
    parts = [part for text in sentences for part in (speaker.say(text.split(), voice=voice).samples, pause)]
    return _wordless(name, np.concatenate([pause, *parts]))


CONDITIONS: Final[dict[str, Callable[[float], Clip]]] = {
    "silence": _silence,
    "white": _white,
    "pink": _pink,
    "music": _music,
    "german": _german,
    "french": _french,
    "clean": _clean,
    "two-speakers": _two_speakers,
    "telephone": _telephone,
}


def _size(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def _rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def _at_rms(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (samples * (NOISE_RMS / np.sqrt(np.mean(samples**2)))).astype(np.float32)
    return scaled


def _wordless(name: str, samples: NDArray[np.float32]) -> Clip:
    return Clip(name, "synthetic", samples, (), "none", "no English is spoken")


def _said(name: str, samples: NDArray[np.float32], said: Utterance) -> Clip:
    words = tuple(SaidWord(text, word.end_s) for word in said.words for text in spoken(word.text))
    return Clip(name, "synthetic", np.clip(samples, -1.0, 1.0).astype(np.float32), words, "true")
