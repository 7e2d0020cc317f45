"""What the decoder is shown and must say for a clip, and where it should look while saying it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from emi_bench.micro_whisper.clips import Clip
    from emi_bench.micro_whisper.tokens import Tokens

__all__ = ["IGNORED", "Target", "make_target"]

IGNORED: Final = -100
TIMESTAMP_SHARE: Final = 0.65
PROMPT_SHARE: Final = 0.4
LONG_PROMPT_SHARE: Final = 0.03  # few, for the longest makes its whole batch long
MAX_PROMPT: Final = 222  # faster-whisper's: half of 448 positions, less one, and <|startofprev|>
FIRST_TIMESTAMP_S: Final = 1.0  # faster-whisper allows no later first one
FRAME_S: Final = 0.02
TAIL_FRAMES: Final = 60  # of a pause that still belongs to the word before it
TAIL_SHARE: Final = 0.2


@dataclass(slots=True)
class Target:
    """One sequence; `inputs[i]` is shown, then `labels[i]` must be said, looking at frames `said[i]`."""

    inputs: list[int]
    labels: list[int]
    said: list[tuple[int, int, int]]  # frames from, to, and to which its tail reaches; from = to: anywhere
    seen: list[tuple[int, int, int]]  # likewise of the input
    silent: bool


def make_target(
    clip: Clip, tokens: Tokens, frames: int, rng: np.random.Generator, *, fills_window: bool = False
) -> Target:
    """Tokens of a clip in one of Whisper's forms: with timestamps or not, after a prompt or not.

    Args:
        clip: what is heard.
        tokens: ids.
        frames: the encoder's frames, of 20 ms, that the clip covers.
        rng: of the form.
        fills_window: nothing of the 30 s is left: a last sentence that goes on is left for the next window.
    """
    stamped = rng.random() < TIMESTAMP_SHARE
    target = Target([], [], [], [], not clip.sentences)
    if rng.random() < PROMPT_SHARE:
        for token in (tokens.previous, *_prompt(clip.before, tokens, rng)):
            _add(target, token, IGNORED)
    nowhere = (0, 0, 0)
    said: list[tuple[int, tuple[int, int, int]]] = [] if stamped else [(tokens.no_timestamps, nowhere)]
    if stamped and not clip.sentences:
        said.append((tokens.at(0.0), nowhere))
    sentences = clip.sentences
    for index, sentence in enumerate(sentences):
        start_s, end_s = sentence[0].start_s, sentence[-1].end_s
        following_s = sentences[index + 1][0].start_s if index + 1 < len(sentences) else end_s
        if stamped:
            written_s = start_s if index else min(start_s, FIRST_TIMESTAMP_S)
            said.append((tokens.at(written_s), _around(start_s, frames)))
            if fills_window and clip.goes_on and 0 < index == len(sentences) - 1:
                break
        for number, word in enumerate(sentence):
            first, last = _frame(word.start_s, frames), _frame(word.end_s, frames)
            tail = (
                min(_frame(following_s, frames), last + TAIL_FRAMES) if number + 1 == len(sentence) else last
            )
            said.append((tokens.words[word.text], (first, max(last, first + 1), max(tail, last, first + 1))))
        if stamped:
            said.append((tokens.at(end_s), _around(end_s, frames)))
    last_s = sentences[-1][-1].end_s if sentences else 0.0
    rest = (_frame(last_s, frames), min(frames, _frame(last_s, frames) + 25)) if sentences else (0, 0)
    said.append((tokens.end, (*rest, rest[1])))
    shown, where = tokens.start, nowhere
    for token, looked_at in said:
        # Whether <|notimestamps|> is said is the caller's choice, not to be guessed from the sound.
        _add(target, shown, IGNORED if token == tokens.no_timestamps else token, looked_at, where)
        shown, where = token, looked_at
    return target


def _add(
    target: Target,
    token: int,
    label: int,
    said: tuple[int, int, int] = (0, 0, 0),
    seen: tuple[int, int, int] = (0, 0, 0),
) -> None:
    target.inputs.append(token)
    target.labels.append(label)
    target.said.append(said)
    target.seen.append(seen)


def _prompt(before: tuple[str, ...], tokens: Tokens, rng: np.random.Generator) -> list[int]:
    """The words said before, at times with timestamps or a word that is spelt in letters."""
    ids = [tokens.words[word] for word in before]
    if rng.random() < 0.2:
        cut = int(rng.integers(len(ids) + 1))
        ids[cut:cut] = [tokens.at(float(rng.uniform(0, 30)))] * 2
    if rng.random() < 0.1:
        ids[:0] = rng.choice(tokens.letters, int(rng.integers(1, 12))).tolist()
    longest = MAX_PROMPT if rng.random() < LONG_PROMPT_SHARE else int(rng.integers(1, 40))
    return ids[-longest:]


def _frame(t_s: float, frames: int) -> int:
    return min(frames, max(0, round(t_s / FRAME_S)))


def _around(t_s: float, frames: int) -> tuple[int, int, int]:
    at = _frame(t_s, frames)
    first, last = max(0, at - 2), min(frames, at + 3)
    return (first, last, last) if last > first else (0, 0, 0)
