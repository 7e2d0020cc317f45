"""Clips as a recogniser meets them: cut anywhere, several sentences, pauses, or no speech at all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.micro_whisper.augment import augment, no_speech
from emi_bench.speech.synthetic import SAMPLE_RATE_HZ, SpokenWord, Synthesizer, Utterance
from emi_bench.speech.vocabulary import draw_sentence, is_held_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Clip", "ClipMaker"]

SPEAKERS: Final = 250  # who are kept; the oldest makes room for a new one
SENTENCES: Final = 12  # of a speaker
LIFETIME: Final = 32  # clips between two new speakers
RATES_WPM: Final = (110, 230)
PITCHES: Final = (25, 75)

SILENT_SHARE: Final = 0.08
LATE_START_SHARE: Final = 0.45  # of the clips begin within a sentence
MIXED_SHARE: Final = 0.3  # of the clips are conversations
HEARD: Final = 0.6  # of a word that is cut: less of it is not written down


@dataclass(frozen=True, slots=True)
class Clip:
    """Sound and its sentences, as far as they are heard in it; times in seconds from its first sample."""

    samples: NDArray[np.float32]
    sentences: tuple[tuple[SpokenWord, ...], ...]
    before: tuple[str, ...]  # words said before the clip began
    phonemes: tuple[SpokenWord, ...] = ()
    goes_on: bool = False  # its last sentence is cut


class ClipMaker:
    """Draws clips, endlessly, from speakers who come and go."""

    def __init__(
        self,
        rng: np.random.Generator,
        voices: Sequence[str],
        *,
        speakers: int = SPEAKERS,
        augmented: float = 1.0,
        held_out: bool = False,
    ) -> None:
        """Ask for the first speakers.

        Args:
            rng: of everything.
            voices: eSpeak NG's names.
            speakers: who are kept at a time, each with a voice, a rate, a pitch and sentences of its own.
            augmented: share of the clips with speech that rooms, noise or telephones change.
            held_out: whether they say the sentences that are kept from training, or all others.
        """
        self._rng = rng
        self._voices = voices
        self._held_out = held_out
        self._augmented = augmented
        self._synthesizer = Synthesizer()
        self._speakers: deque[list[Utterance]] = deque(maxlen=speakers)
        self._made = 0
        for _ in range(speakers):
            self._speakers.append(self._speaker())

    def draw(self, longest_s: float, *, full: bool = False) -> Clip:
        """One clip of at most `longest_s`; `full` makes it exactly as long."""
        rng = self._rng
        self._made += 1
        if self._made % LIFETIME == 0:
            self._speakers.append(self._speaker())
        seconds = longest_s if full else longest_s * float(rng.beta(2.0, 1.3)) + 0.3
        size = round(min(seconds, longest_s) * SAMPLE_RATE_HZ)
        if rng.random() < SILENT_SHARE:
            return Clip(no_speech(size, rng), (), self._unrelated())
        while (clip := self._speech(size)) is None:
            pass
        return clip

    def whole(self, longest_s: float | None = None) -> Clip:
        """One sentence, or as many of one speaker's as fit into `longest_s`; clean, and none is cut."""
        rng, speaker = self._rng, self._anyone()
        sound: list[NDArray[np.float32]] = []
        found: list[tuple[SpokenWord, ...]] = []
        t_s = 0.0
        while True:
            pause = round(float(rng.uniform(0.1, 1.0)) * SAMPLE_RATE_HZ)
            said = speaker[int(rng.integers(len(speaker)))]
            length_s = (pause + said.samples.size) / SAMPLE_RATE_HZ
            if found and (longest_s is None or t_s + length_s > longest_s):
                return Clip(np.concatenate(sound), tuple(found), ())
            sound += [np.zeros(pause, np.float32), said.samples]
            found.append(_within(said, t_s + pause / SAMPLE_RATE_HZ, np.inf))
            t_s += length_s

    def _speech(self, size: int) -> Clip | None:
        rng = self._rng
        late = rng.random() < LATE_START_SHARE
        mixed = rng.random() < MIXED_SHARE
        speaker = self._anyone()
        parts: list[tuple[int, Utterance]] = []
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
        heard = sound[skipped : skipped + size]
        if not any(sentences):
            fragments = np.abs(heard).max() > 0.02
            if fragments:
                return None  # part of a word alone: neither speech nor silence
        missed = len(parts[0][1].words) - len(sentences[0]) if late else 0
        before = (
            (*self._unrelated(), *(word.text for word in parts[0][1].words[:missed]))
            if late
            else self._unrelated()
        )
        return Clip(
            augment(heard, rng) if rng.random() < self._augmented else heard,
            tuple(sentence for sentence in sentences if sentence),
            before,
            tuple(
                SpokenWord(sound.text, sound.start_s + offset_s, sound.end_s + offset_s)
                for offset_s, said in placed
                for sound in said.phonemes
            ),
            bool(parts) and len(sentences[-1]) < len(parts[-1][1].words),
        )

    def _entry(self, said: Utterance) -> int:
        """Where in a sentence a clip begins: near a word's start, as after a trim, or anywhere."""
        rng = self._rng
        if rng.random() < 0.6:
            word = said.words[int(rng.integers(len(said.words)))]
            at = round((word.start_s + float(rng.normal(0.0, 0.06))) * SAMPLE_RATE_HZ)
        else:
            at = int(rng.integers(said.samples.size))
        return min(max(at, 0), said.samples.size - 1)

    def _anyone(self) -> list[Utterance]:
        return self._speakers[int(self._rng.integers(len(self._speakers)))]

    def _unrelated(self) -> tuple[str, ...]:
        rng = self._rng
        words: list[str] = []
        for _ in range(int(rng.geometric(0.3))):
            words += draw_sentence(rng)
        return tuple(words)

    def _speaker(self) -> list[Utterance]:
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


def _within(said: Utterance, offset_s: float, seconds: float) -> tuple[SpokenWord, ...]:
    """The words that are heard well enough between 0 and `seconds`, if the sentence begins at `offset_s`."""
    heard = []
    for word in said.words:
        start_s, end_s = word.start_s + offset_s, word.end_s + offset_s
        inside = SpokenWord(word.text, max(start_s, 0.0), min(end_s, seconds))
        if inside.end_s - inside.start_s >= HEARD * (end_s - start_s):
            heard.append(inside)
    return tuple(heard)
