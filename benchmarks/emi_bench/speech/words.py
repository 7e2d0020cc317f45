"""Words as they are compared: neither case nor punctuation, titles and small numbers spelt out.

No other normalisation: "ill-disposed" is two words, "don't" is one, and "okay" is not "ok". Word error rates
of papers that use Whisper's own, larger normaliser are a little lower.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NORMALISATION", "spoken"]

NORMALISATION: Final = (
    "lower case; punctuation off, hyphens part words; mr, mrs, dr and the numbers 0 to 12 spelt out"
)
NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
SPELT: Final = {"mr": "mister", "mrs": "missus", "dr": "doctor"} | {
    str(number): word for number, word in enumerate(NUMBERS)
}
APOSTROPHES: Final = dict.fromkeys(map(ord, "’‘`´"), "'")  # noqa: RUF001 # as recognisers and people write it


def spoken(text: str) -> list[str]:
    """The words of a text, or of a recogniser's word, which may be none or several."""
    plain = "".join(
        letter if letter.isalnum() or letter == "'" else " "
        for letter in text.translate(APOSTROPHES).casefold()
    )
    bare = (word.strip("'") for word in plain.split())
    return [SPELT.get(word, word) for word in bare if word]
