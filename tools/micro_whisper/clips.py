"""Training clips as a recogniser gets them: cut anywhere, several sentences, pauses, or no speech at all.

Rooms, noise, telephones and levels change the speech; other sounds stand for no speech.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.speech.synthetic import (
    SAMPLE_RATE_HZ,
    SpokenWord,
    Synthesizer,
    SyntheticUtterance,
    draw_sentence,
    is_held_out,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ClipMaker", "TrainingClip", "augment", "no_speech"]

NOISE_SHARE: Final = 0.6
REVERB_SHARE: Final = 0.2
BAND_SHARE: Final = 0.2
SNR_DB: Final = (5.0, 40.0)
GAIN_DB: Final = (-24.0, 4.0)
SPEAKERS: Final = 250  # kept at a time; a new one replaces the oldest
SENTENCES: Final = 12  # of a speaker
LIFETIME: Final = 32  # clips between two new speakers
RATES_WPM: Final = (110, 230)
PITCHES: Final = (25, 75)
SILENT_SHARE: Final = 0.08
LATE_START_SHARE: Final = 0.45  # of the clips begin within a sentence
MIXED_SHARE: Final = 0.3  # of the clips are conversations
LEAST_PART: Final = 0.6  # of a word that is cut: a smaller part is not a word of the clip


def augment(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Speech, shape (n,), as from a microphone in some room; times do not change."""
    changed = samples
    if rng.random() < REVERB_SHARE:
        changed = _in_a_room(changed, rng)
    if rng.random() < NOISE_SHARE:
        level = float(np.sqrt(np.mean(np.square(changed)))) + 1e-4
        noise = _noise(changed.size, rng)
        changed = changed + noise * level * _factor(-rng.uniform(*SNR_DB))
    if rng.random() < BAND_SHARE:
        low, high = (300.0, 3400.0) if rng.random() < 0.5 else (float(rng.uniform(0, 200)), 5000.0)
        changed = _band(changed, low, high)
    changed = changed * _factor(rng.uniform(*GAIN_DB))
    return np.clip(changed, -1.0, 1.0).astype(np.float32)


def no_speech(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Silence, noise, hum, tones or clicks, shape (size,)."""
    kind = int(rng.integers(6))
    level = _factor(rng.uniform(-60.0, -10.0))
    sound: NDArray[np.floating]
    if kind == 0:
        return np.zeros(size, np.float32)
    if kind <= 2:
        sound = _noise(size, rng)
    elif kind == 3:
        sound = _music(size, rng)
    elif kind == 4:
        sound = _hum(size, rng) + _noise(size, rng) * _factor(rng.uniform(-40.0, 0.0))
    else:
        sound = _clicks(size, rng)
    if rng.random() < 0.3:  # loud and quiet by turns
        knots = rng.uniform(0.0, 1.0, max(2, size // 4_000))
        sound = sound * np.interp(np.linspace(0, 1, size), np.linspace(0, 1, knots.size), knots)
    return np.asarray(np.clip(sound * level, -1.0, 1.0), np.float32)


def _factor(db: float) -> float:
    return float(10.0 ** (db / 20.0))


def _noise(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """White to brown noise of unit power, sometimes with hum."""
    spectrum = np.fft.rfft(rng.standard_normal(_quick(size), np.float32))
    bins = np.arange(spectrum.size, dtype=np.float32)
    noise = np.fft.irfft(spectrum * (bins + 8.0) ** np.float32(-rng.uniform(0.0, 1.0)))[:size]
    if rng.random() < 0.2:
        noise = noise / (noise.std() + 1e-9) + _hum(size, rng)
    unit: NDArray[np.float32] = (noise / (noise.std() + 1e-9)).astype(np.float32)
    return unit


def _hum(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    t_s = np.arange(size, dtype=np.float32) / SAMPLE_RATE_HZ
    base = float(rng.choice([50.0, 60.0, rng.uniform(80.0, 400.0)]))
    phases = rng.uniform(0, 2 * np.pi, 8)
    hum = sum(np.sin(2 * np.pi * base * n * t_s + phases[n - 1]) / n**1.5 for n in range(1, 9))
    return np.asarray(hum, np.float32)


def _music(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Chords that are struck and fade."""
    sound = np.zeros(size, np.float32)
    at = 0
    while at < size:
        length = min(size - at, int(rng.uniform(0.15, 0.8) * SAMPLE_RATE_HZ))
        t_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
        root = 110.0 * 2.0 ** (rng.integers(0, 36) / 12.0)
        for step in (0, int(rng.choice([3, 4])), 7)[: int(rng.integers(1, 4))]:
            pitch = root * 2.0 ** (step / 12.0)
            for n in range(1, 5):
                sound[at : at + length] += np.sin(2 * np.pi * pitch * n * t_s) * np.exp(-4.0 * t_s) / n**1.3
        at += length
    return sound / 3.0


def _clicks(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    sound = np.zeros(size, np.float32)
    for at in rng.integers(0, size, max(1, size // 8_000)):
        length = min(size - int(at), int(rng.integers(40, 1_600)))
        burst = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 4.0))
        sound[at : at + length] += burst.astype(np.float32)
    return sound


def _in_a_room(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Reverberation of 0.1 to 0.5 s; the direct sound does not move."""
    length = int(rng.uniform(0.1, 0.5) * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length) * rng.uniform(0.01, 0.06)
    tail[0] = 1.0
    size = _quick(samples.size + length)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: samples.size]
    return np.asarray(wet, np.float32)


def _band(samples: NDArray[np.float32], low_hz: float, high_hz: float) -> NDArray[np.float32]:
    size = _quick(samples.size)
    spectrum = np.fft.rfft(samples, size)
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    spectrum[(hz < low_hz) | (hz > high_hz)] = 0.0
    return np.fft.irfft(spectrum, size)[: samples.size].astype(np.float32)


def _quick(size: int) -> int:
    """A length of at least `size` whose Fourier transform is fast."""
    return -(-size // 4_096) * 4_096


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """Sound and the parts of its sentences that it contains; times in seconds from its first sample."""

    samples: NDArray[np.float32]
    sentences: tuple[tuple[SpokenWord, ...], ...]
    before: tuple[str, ...]  # words said before the clip began
    phonemes: tuple[SpokenWord, ...] = ()
    goes_on: bool = False  # its last sentence is cut


class ClipMaker:
    """Draws clips from a changing set of speakers, without end."""

    def __init__(
        self,
        rng: np.random.Generator,
        voices: Sequence[str],
        *,
        speakers: int = SPEAKERS,
        augmented: float = 1.0,
        held_out: bool = False,
    ) -> None:
        """Make the first speakers.

        Args:
            rng: for all choices.
            voices: eSpeak NG's names.
            speakers: kept at a time, each with a voice, a rate, a pitch and sentences of its own.
            augmented: share of the clips with speech that rooms, noise or telephones change.
            held_out: whether they say the sentences that are kept from training, or all others.
        """
        self._rng = rng
        self._voices = voices
        self._held_out = held_out
        self._augmented = augmented
        self._synthesizer = Synthesizer()
        self._speakers: deque[list[SyntheticUtterance]] = deque(maxlen=speakers)
        self._made = 0
        for _ in range(speakers):
            self._speakers.append(self._speaker())

    def draw(self, longest_s: float, *, full: bool = False) -> TrainingClip:
        """One clip of at most `longest_s`; `full` makes it exactly as long."""
        rng = self._rng
        self._made += 1
        if self._made % LIFETIME == 0:
            self._speakers.append(self._speaker())
        seconds = longest_s if full else longest_s * float(rng.beta(2.0, 1.3)) + 0.3
        size = round(min(seconds, longest_s) * SAMPLE_RATE_HZ)
        if rng.random() < SILENT_SHARE:
            return TrainingClip(no_speech(size, rng), (), self._unrelated())
        while (clip := self._speech(size)) is None:
            pass
        return clip

    def whole(self, longest_s: float | None = None) -> TrainingClip:
        """One clean sentence, or as many sentences of one speaker as fit into `longest_s`; none is cut."""
        rng, speaker = self._rng, self._anyone()
        sound: list[NDArray[np.float32]] = []
        found: list[tuple[SpokenWord, ...]] = []
        t_s = 0.0
        while True:
            pause = round(float(rng.uniform(0.1, 1.0)) * SAMPLE_RATE_HZ)
            said = speaker[int(rng.integers(len(speaker)))]
            length_s = (pause + said.samples.size) / SAMPLE_RATE_HZ
            if found and (longest_s is None or t_s + length_s > longest_s):
                return TrainingClip(np.concatenate(sound), tuple(found), ())
            sound += [np.zeros(pause, np.float32), said.samples]
            found.append(_within(said, t_s + pause / SAMPLE_RATE_HZ, np.inf))
            t_s += length_s

    def _speech(self, size: int) -> TrainingClip | None:
        rng = self._rng
        late = rng.random() < LATE_START_SHARE
        mixed = rng.random() < MIXED_SHARE
        speaker = self._anyone()
        parts: list[tuple[int, SyntheticUtterance]] = []
        at = (
            0
            if late
            else round(float(rng.choice([0.0, rng.uniform(0.0, 0.6), rng.uniform(0.0, 2.5)])) * 16_000)
        )
        skipped = 0
        longest_pause_s = float(rng.choice([0.3, 0.8, 2.0]))
        while at < size + skipped:
            who = self._anyone() if mixed else speaker
            said = who[int(rng.integers(len(who)))]
            if late and not parts:
                skipped = self._entry(said)
            parts.append((at, said))
            at += said.samples.size + round(float(rng.uniform(0.05, longest_pause_s)) * SAMPLE_RATE_HZ)
        sound = np.zeros(max(at, skipped + size), np.float32)
        for start, said in parts:
            sound[start : start + said.samples.size] = said.samples
        placed = [((start - skipped) / SAMPLE_RATE_HZ, said) for start, said in parts]
        sentences = [_within(said, offset_s, size / SAMPLE_RATE_HZ) for offset_s, said in placed]
        kept = sound[skipped : skipped + size]
        if not any(sentences):
            fragments = np.abs(kept).max() > 0.02
            if fragments:
                return None  # only a part of a word: neither speech nor silence
        missed = len(parts[0][1].words) - len(sentences[0]) if late else 0
        before = (
            (*self._unrelated(), *(word.text for word in parts[0][1].words[:missed]))
            if late
            else self._unrelated()
        )
        return TrainingClip(
            augment(kept, rng) if rng.random() < self._augmented else kept,
            tuple(sentence for sentence in sentences if sentence),
            before,
            tuple(
                SpokenWord(sound.text, sound.start_s + offset_s, sound.end_s + offset_s)
                for offset_s, said in placed
                for sound in said.phonemes
            ),
            bool(parts) and len(sentences[-1]) < len(parts[-1][1].words),
        )

    def _entry(self, said: SyntheticUtterance) -> int:
        """Where in a sentence a clip begins: near a word's start, as after a trim, or anywhere."""
        rng = self._rng
        if rng.random() < 0.6:
            word = said.words[int(rng.integers(len(said.words)))]
            at = round((word.start_s + float(rng.normal(0.0, 0.06))) * SAMPLE_RATE_HZ)
        else:
            at = int(rng.integers(said.samples.size))
        return min(max(at, 0), said.samples.size - 1)

    def _anyone(self) -> list[SyntheticUtterance]:
        return self._speakers[int(self._rng.integers(len(self._speakers)))]

    def _unrelated(self) -> tuple[str, ...]:
        rng = self._rng
        words: list[str] = []
        for _ in range(int(rng.geometric(0.3))):
            words += draw_sentence(rng)
        return tuple(words)

    def _speaker(self) -> list[SyntheticUtterance]:
        rng = self._rng
        voice = self._voices[int(rng.integers(len(self._voices)))]
        rate, pitch = int(rng.integers(*RATES_WPM)), int(rng.integers(*PITCHES))
        return [
            self._synthesizer.say(self._sentence(), voice=voice, rate_wpm=rate, pitch=pitch)
            for _ in range(SENTENCES)
        ]

    def _sentence(self) -> tuple[str, ...]:
        while is_held_out(words := draw_sentence(self._rng)) != self._held_out:
            pass
        return words


def _within(said: SyntheticUtterance, offset_s: float, seconds: float) -> tuple[SpokenWord, ...]:
    """The words that are complete enough between 0 and `seconds`, if the sentence begins at `offset_s`."""
    kept = []
    for word in said.words:
        start_s, end_s = word.start_s + offset_s, word.end_s + offset_s
        inside = SpokenWord(word.text, max(start_s, 0.0), min(end_s, seconds))
        if inside.end_s - inside.start_s >= LEAST_PART * (end_s - start_s):
            kept.append(inside)
    return tuple(kept)
