"""Hard conditions: sounds without words, real words in each of them, other languages, a telephone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.speech.clips import RATE_HZ, SEED, SaidWord, SpeechClip, normalise, real_clips

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_bench.speech.synthetic import SyntheticUtterance

__all__ = ["CONDITIONS", "make_condition"]

NOISE_RMS: Final = 10 ** (-30 / 20)  # -30 dB of full scale
LONGEST_S: Final = 60.0  # of speech
MU: Final = 255.0  # of the telephone's mu-law, ITU-T G.711
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
VOICES_IN_BABBLE: Final = 9
WORDS_CLIP: Final = "LJ001-0004"  # real speech, 14 words
WORDS_ABOVE_DB: Final = 10.0
MIXED: Final = "words-in-"  # and the name of a sound without words


def make_condition(name: str, seconds: float) -> SpeechClip:
    """The clip of a condition; speech lasts at most a minute, other languages a few seconds."""
    if name.startswith(MIXED):
        return _with_words(SOUNDS[name.removeprefix(MIXED)](seconds))
    return SOUNDS[name](seconds)


def _silence(seconds: float) -> SpeechClip:
    return _wordless("silence", np.zeros(_size(seconds), np.float32))


def _white(seconds: float) -> SpeechClip:
    return _wordless("white noise, -30 dBFS", _at_rms(_rng().normal(size=_size(seconds))))


def _pink(seconds: float) -> SpeechClip:
    """Noise whose power falls with frequency, from 20 Hz on."""
    spectrum = np.fft.rfft(_rng().normal(size=_size(seconds)))
    frequency = np.fft.rfftfreq(_size(seconds), 1 / RATE_HZ)
    return _wordless(
        "pink noise, -30 dBFS", _at_rms(np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 20.0))))
    )


def _music(seconds: float) -> SpeechClip:
    """Chords of decaying harmonics with a bass and a beat, 110 a minute."""
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


def _babble(seconds: float) -> SpeechClip:
    """Nine people who talk at once, each with another voice."""
    from emi_bench.speech.synthetic import VOICES, monologue

    step = len(VOICES) // VOICES_IN_BABBLE
    parts = [
        monologue(seconds, SEED + index, pause_s=(0.0, 0.3), voice=VOICES[index * step]).samples
        for index in range(VOICES_IN_BABBLE)
    ]
    mixed = np.sum([np.roll(part, index * RATE_HZ) for index, part in enumerate(parts)], axis=0)
    return _wordless(f"babble of {VOICES_IN_BABBLE} voices, -30 dBFS", _at_rms(mixed.astype(np.float64)))


def _applause(seconds: float) -> SpeechClip:
    """Some 200 claps a second: short bursts of noise around 1 to 4 kHz, louder and softer."""
    rng, size = _rng(), _size(seconds)
    samples = np.zeros(size + RATE_HZ)
    at = np.arange(round(0.02 * RATE_HZ)) / RATE_HZ
    for start in rng.integers(0, size, round(200 * seconds)):
        pitch = rng.uniform(900.0, 3500.0)
        clap = np.sin(2 * np.pi * pitch * at + rng.uniform(0, 6.28)) + rng.normal(size=at.size)
        samples[start : start + at.size] += rng.uniform(0.2, 1.0) * clap * np.exp(-at / 0.004)
    swell = 1.0 + 0.5 * np.sin(2 * np.pi * np.arange(size) / (7.0 * RATE_HZ))
    return _wordless("applause-like, -30 dBFS", _at_rms(samples[:size] * swell))


def _hold_tone(seconds: float) -> SpeechClip:
    """A tone of 440 and 480 Hz, two seconds on and four off, as a telephone rings."""
    at = np.arange(_size(seconds)) / RATE_HZ
    tone = np.sin(2 * np.pi * 440 * at) + np.sin(2 * np.pi * 480 * at)
    return _wordless("hold tone, -30 dBFS", _at_rms(np.where(at % 6.0 < 2.0, tone, 0.0)))


def _breathing(seconds: float) -> SpeechClip:
    """Breath: noise around 500 to 2,500 Hz that swells and falls 15 times a minute, in and out."""
    spectrum = np.fft.rfft(_rng().normal(size=_size(seconds)))
    frequency = np.fft.rfftfreq(_size(seconds), 1 / RATE_HZ)
    band = np.exp(-0.5 * np.square((frequency - 1200.0) / 700.0))
    at = np.arange(_size(seconds)) / RATE_HZ
    phase = at % 4.0
    breath = np.where(phase < 1.5, np.sin(np.pi * phase / 1.5), 0.0)
    breath += np.where((phase >= 2.0) & (phase < 3.6), 0.7 * np.sin(np.pi * (phase - 2.0) / 1.6), 0.0)
    noise = np.fft.irfft(spectrum * band, at.size)
    return _wordless("breathing, -30 dBFS", _at_rms(noise * breath))


def _with_words(sound: SpeechClip) -> SpeechClip:
    """The same with a real sentence at its 5th second, 10 dB louder; its first minute."""
    clip = next(clip for clip in real_clips() if clip.name == WORDS_CLIP)
    samples = sound.samples[: _size(LONGEST_S)].copy()
    begin = min(_size(5.0), max(0, samples.size - clip.samples.size))
    samples = np.pad(samples, (0, max(0, begin + clip.samples.size - samples.size)))
    gain = NOISE_RMS * 10 ** (WORDS_ABOVE_DB / 20) / np.sqrt(np.mean(np.square(clip.samples)))
    samples[begin : begin + clip.samples.size] += gain * clip.samples
    words = tuple(
        SaidWord(word.text, None if word.end_s is None else word.end_s + begin / RATE_HZ)
        for word in clip.words
    )
    return SpeechClip(f"a real sentence in {sound.name}", "real", samples, words, clip.times)


def _two_speakers(seconds: float) -> SpeechClip:
    """Two speakers at once; the first is scored, the second is 6 dB softer."""
    from emi_bench.speech.synthetic import monologue

    first = monologue(min(seconds, LONGEST_S), SEED, voice="en-us")
    second = monologue(min(seconds, LONGEST_S), SEED + 1, voice="en-us+f2")
    return _said("two speakers at once", first.samples + 0.5 * second.samples, first)


def _telephone(seconds: float) -> SpeechClip:
    """300 to 3400 Hz, sampled at 8 kHz and 8 bits on the way (mu-law)."""
    from emi_bench.speech.synthetic import monologue, to_16_khz

    said = monologue(min(seconds, LONGEST_S), SEED, voice="en-us")
    spectrum = np.fft.rfft(said.samples)
    frequency = np.fft.rfftfreq(said.samples.size, 1 / RATE_HZ)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    at_8_khz = np.fft.irfft(spectrum, said.samples.size).clip(-1, 1)[::2]  # nothing is left above 3400 Hz
    louder = np.sign(at_8_khz) * np.log1p(MU * np.abs(at_8_khz)) / np.log1p(MU)
    coded = np.round((louder + 1) / 2 * MU) / MU * 2 - 1
    decoded = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(MU)) / MU
    return _said("telephone, 8 kHz", to_16_khz(decoded.astype(np.float32), RATE_HZ // 2), said)


def _clean(seconds: float) -> SpeechClip:
    """The speech of the last two conditions without changes, for comparison."""
    from emi_bench.speech.synthetic import monologue

    said = monologue(min(seconds, LONGEST_S), SEED, voice="en-us")
    return _said("the same speech, clean", said.samples, said)


def _german(_: float) -> SpeechClip:
    return _foreign("German", "de", GERMAN)


def _french(_: float) -> SpeechClip:
    return _foreign("French", "fr", FRENCH)


def _foreign(name: str, voice: str, sentences: tuple[str, ...]) -> SpeechClip:
    """Speech in a language that the recogniser does not expect."""
    from emi_bench.speech.synthetic import Synthesizer

    speaker, pause = Synthesizer(), np.zeros(RATE_HZ, np.float32)
    parts = [part for text in sentences for part in (speaker.say(text.split(), voice=voice).samples, pause)]
    return _wordless(name, np.concatenate([pause, *parts]))


SOUNDS: Final[dict[str, Callable[[float], SpeechClip]]] = {
    "silence": _silence,
    "white": _white,
    "pink": _pink,
    "music": _music,
    "babble": _babble,
    "applause": _applause,
    "hold-tone": _hold_tone,
    "breathing": _breathing,
    "german": _german,
    "french": _french,
    "clean": _clean,
    "two-speakers": _two_speakers,
    "telephone": _telephone,
}


WORDLESS: Final = ("silence", "white", "pink", "music", "babble", "applause", "hold-tone", "breathing")
CONDITIONS: Final = (*SOUNDS, *(MIXED + name for name in WORDLESS[1:]))


def _size(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def _rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def _at_rms(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (samples * (NOISE_RMS / np.sqrt(np.mean(samples**2)))).astype(np.float32)
    return scaled


def _wordless(name: str, samples: NDArray[np.float32]) -> SpeechClip:
    return SpeechClip(name, "synthetic", samples, (), "none", "no English is spoken")


def _said(name: str, samples: NDArray[np.float32], said: SyntheticUtterance) -> SpeechClip:
    words = tuple(SaidWord(text, word.end_s) for word in said.words for text in normalise(word.text))
    return SpeechClip(name, "synthetic", np.clip(samples, -1.0, 1.0).astype(np.float32), words, "true")
