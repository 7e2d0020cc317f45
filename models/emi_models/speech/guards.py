"""Guards against invented words.

Whisper was trained on subtitles: in silence it may write "Thanks for watching!", or repeat itself. Each guard
checks one sign of such a hallucination and counts what it drops; they are independent of each other. The
sixth guard, that no prompt is carried from one utterance to the next, is in `IncrementalRecognizer`.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from emi_models.speech.agreement import spoken_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment

__all__ = ["GUARDS", "GuardSettings", "Guards", "VoiceMap", "last_loop", "loops"]

GUARDS: Final = ("voice", "no_speech", "log_probability", "compression", "repetition", "carry_over")
LONGEST_LOOP: Final = 5  # words
LOOP_TURNS: Final = 3  # of a phrase
WORD_TURNS: Final = 4  # of a single word: "no, no, no" is what people say
LAUGHTER: Final = re.compile(r"([^\W\d]{1,4}?)\1{5}", re.IGNORECASE)
VOICE_MARGIN_S: Final = 0.3  # the error of a recogniser's word times


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Thresholds, at OpenAI's values; None switches a guard off."""

    # A segment is dropped if its probability of silence is above this,
    no_speech: float | None = 0.6
    # if the mean log probability of its tokens is below this,
    log_probability: float | None = -1.0
    # or if zlib makes it more than so many times shorter.
    compression: float | None = 2.4


class VoiceMap(Protocol):
    """Where the voice gate detected speech."""

    def any_between(self, start_s: float, end_s: float) -> bool:
        """Whether there was speech in that span."""
        ...


class Guards:
    """Five guards that check each hypothesis. `dropped` counts dropped words by guard."""

    def __init__(self, settings: GuardSettings | None = None) -> None:
        self._settings = settings or GuardSettings()
        self.dropped: Counter[str] = Counter()

    def passed(self, hypothesis: Hypothesis, voice: VoiceMap, said: int = 0) -> list[RecognizedWord]:
        """The words after the committed ones that pass all guards; of a loop, its first turn.

        Args:
            hypothesis: what the recogniser returned.
            voice: where there was speech, by the same clock.
            said: how many words at the start are committed already; these are not checked.
        """
        texts = [word.text for word in hypothesis.words]
        looping = loops(texts)
        end = 0
        for segment in hypothesis.segments:
            start, end = end, end + len(segment.words)
            if segment.stopped:
                looping |= {start + place for place in last_loop(texts[start:end])}
        kept: list[RecognizedWord] = []
        end = 0
        for segment in hypothesis.segments:
            start, end = end, end + len(segment.words)
            judged = [texts[i] for i in range(start, end) if i not in looping]
            guard = self._against(segment, judged, begun=said > start)
            for place in range(max(start, said), end):
                word = hypothesis.words[place]
                why = "repetition" if place in looping else guard
                if why is None and not _voiced(word, voice):
                    why = "voice"
                if why is None:
                    kept.append(word)
                else:
                    self.dropped[why] += 1
        return kept

    def _against(self, segment: Segment, texts: Sequence[str], *, begun: bool) -> str | None:
        """The guard that a segment fails, None if it passes. `texts`: its words without loops.

        `begun`: the segment begins with committed words. Then somebody spoke, and silence is not checked.
        """
        limits = self._settings
        if not texts:
            return None
        if not begun and _above(segment.no_speech, limits.no_speech):
            return "no_speech"
        if (
            segment.log_probability is not None
            and limits.log_probability is not None
            and segment.log_probability < limits.log_probability
        ):
            return "log_probability"
        return "compression" if _above(_compression(" ".join(texts)), limits.compression) else None


def _compression(text: str) -> float:
    """How many times shorter zlib makes the text."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))


def loops(texts: Sequence[str]) -> set[int]:
    """The places of words that repeat a loop, without its first turn.

    A loop is a phrase of 2 to 5 words said 3 times in a row, or one word said 4 times. A word that repeats
    the same letters six times is laughter; it is always dropped.
    """
    kept = [(place, spoken_form(text)) for place, text in enumerate(texts) if not LAUGHTER.search(text)]
    before = -1
    while before != len(kept):  # words that are now next to each other may form a new loop
        before = len(kept)
        for size in range(1, LONGEST_LOOP + 1):
            least = WORD_TURNS if size == 1 else LOOP_TURNS
            start = 0
            while start + least * size <= len(kept):
                turns = _turns([form for _, form in kept[start:]], size)
                if turns >= least:
                    del kept[start + size : start + turns * size]
                start += 1
    return set(range(len(texts))) - {place for place, _ in kept}


def last_loop(texts: Sequence[str]) -> set[int]:
    """The places of words that repeat the loop at the end of a text, without its first turn.

    For a text that was stopped because it was too long. The loop may have any length, and two turns are
    enough. Only a third or later turn may be incomplete.
    """
    forms = [spoken_form(text) for text in texts]
    longest = 0
    for size in range(1, len(forms) // 2 + 1):
        repeated = 0
        while repeated + size < len(forms) and forms[-1 - repeated] == forms[-1 - repeated - size]:
            repeated += 1
        if repeated >= size:
            longest = max(longest, repeated)
    return set(range(len(forms) - longest, len(forms)))


def _voiced(word: RecognizedWord, voice: VoiceMap) -> bool:
    return voice.any_between(word.start_s - VOICE_MARGIN_S, word.end_s + VOICE_MARGIN_S)


def _turns(texts: Sequence[str], size: int) -> int:
    """How often the first `size` texts occur in a row."""
    turns = 1
    while list(texts[turns * size : (turns + 1) * size]) == list(texts[:size]):
        turns += 1
    return turns


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
