"""Whisper's special tokens and timestamps over a vocabulary of whole words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_bench.speech.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TIMESTAMPS", "Tokens", "make_tokenizer"]

TIMESTAMPS: Final = 1501  # 0.00 to 30.00 s
STEP_S: Final = 0.02
SPECIAL: Final = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of the tokens; faster-whisper takes text below `end`, timestamps above `no_timestamps`."""

    words: dict[str, int]
    letters: tuple[int, ...]  # bytes, which unknown words of a prompt are made of
    end: int
    start: int
    previous: int
    no_speech: int
    no_timestamps: int
    size: int

    def at(self, t_s: float) -> int:
        """The timestamp nearest to a time, 0 to 30 s."""
        return self.no_timestamps + 1 + min(TIMESTAMPS - 1, max(0, round(t_s / STEP_S)))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Tokens:
        """The ids that a tokenizer gives."""
        ids = tokenizer.get_vocab()
        return cls(
            words={word: ids[f"Ġ{word}"] for word in VOCABULARY},
            letters=tuple(ids[letter] for letter in "Ġabcdefghijklmnopqrstuvwxyz"),
            end=ids["<|endoftext|>"],
            start=ids["<|startoftranscript|>"],
            previous=ids["<|startofprev|>"],
            no_speech=ids["<|nospeech|>"],
            no_timestamps=ids["<|notimestamps|>"],
            size=tokenizer.get_vocab_size(),
        )


def make_tokenizer() -> Tokenizer:
    """A word of the vocabulary with a space before it is one token; any other text is bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    texts = sorted(pre_tokenizers.ByteLevel.alphabet()) + [f"Ġ{word}" for word in VOCABULARY]
    texts = list(dict.fromkeys(texts))
    tokenizer = Tokenizer(
        models.BPE(vocab={text: index for index, text in enumerate(texts)}, merges=[], ignore_merges=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    stamps = [f"<|{index * STEP_S:.2f}|>" for index in range(TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    return tokenizer
