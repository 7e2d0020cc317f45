"""The words that synthetic speech says, sentences drawn from them, and the voices that say them.

Both the training of the micro-Whisper and the benchmark draw from here, so that they speak of the same words.
No two of the words sound alike, and eSpeak NG speaks none of their pairs as one word (as it does "of the").
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ACCENTS", "HELD_OUT_VOICES", "VOCABULARY", "VOICES", "draw_sentence", "is_held_out"]

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

_RANDOM_SHARE: Final = 0.5  # of the sentences, words in any order: grammar alone would be learnt by heart
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


def draw_sentence(rng: np.random.Generator) -> tuple[str, ...]:
    """Words of one sentence, 1 to 12 of them: half of the sentences by a small grammar, half in any order."""
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
    """Whether a sentence is one of the tenth that no training hears."""
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
