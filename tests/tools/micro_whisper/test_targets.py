from __future__ import annotations

import numpy as np
import pytest

from emi_bench.speech.synthetic import SpokenWord
from tools.micro_whisper.clips import TrainingClip
from tools.micro_whisper.examples import IGNORED, Target, Tokens, make_target, make_tokenizer

TOKENIZER = make_tokenizer()
TOKENS = Tokens.of(TOKENIZER)
SENTENCES = (
    (SpokenWord("i", 0.5, 0.7), SpokenWord("win", 0.7, 1.0)),
    (SpokenWord("we", 1.6, 1.8), SpokenWord("lose", 1.8, 2.225)),
)


def forms(clip: TrainingClip, *, fills_window: bool = False) -> list[Target]:
    rng = np.random.default_rng(0)
    return [make_target(clip, TOKENS, 150, rng, fills_window=fills_window) for _ in range(100)]


def asked(target: Target) -> str:
    labels = [label for label in target.labels if label != IGNORED]
    return "".join(str(TOKENIZER.id_to_token(label)) for label in labels).replace("Ġ", " ")


def clip_of(sentences: tuple[tuple[SpokenWord, ...], ...], *, goes_on: bool = False) -> TrainingClip:
    return TrainingClip(np.zeros(48_000, np.float32), sentences, ("yes", "please"), goes_on=goes_on)


def test_words_are_asked_for_in_whispers_two_forms() -> None:
    assert {asked(target) for target in forms(clip_of(SENTENCES))} == {
        "<|0.50|> i win<|1.00|><|1.60|> we lose<|2.22|><|endoftext|>",
        " i win we lose<|endoftext|>",
    }


def test_a_first_timestamp_is_never_later_than_faster_whisper_allows() -> None:
    late = (SpokenWord("win", 1.7, 2.0),)
    assert "<|1.00|> win<|2.00|><|endoftext|>" in {asked(target) for target in forms(clip_of((late,)))}


def test_a_prompt_is_shown_and_never_asked_for() -> None:
    prompted = [t for t in forms(clip_of(SENTENCES)) if t.inputs[0] == TOKENS.previous]
    assert 20 < len(prompted) < 60
    for target in prompted:
        start = target.inputs.index(TOKENS.start)
        assert start >= 1
        assert set(target.labels[:start]) == {IGNORED}


def test_where_nothing_is_said_the_end_is_asked_for_at_once() -> None:
    silent = forms(clip_of(()))
    assert {asked(target) for target in silent} == {"<|0.00|><|endoftext|>", "<|endoftext|>"}
    assert all(target.silent for target in silent)


def test_a_last_sentence_that_goes_on_is_left_for_the_next_window_of_30_s() -> None:
    texts = {asked(target) for target in forms(clip_of(SENTENCES, goes_on=True), fills_window=True)}
    assert "<|0.50|> i win<|1.00|><|1.60|><|endoftext|>" in texts


def test_while_a_word_is_said_its_frames_are_looked_at() -> None:
    target = next(t for t in forms(clip_of(SENTENCES)) if t.inputs[0] == TOKENS.start)
    said = dict(zip(target.labels, target.said, strict=True))
    assert said[TOKENS.words["i"]] == (25, 35, 35)
    assert said[TOKENS.words["win"]] == (35, 50, 80)  # the pause after it is its tail
    seen = dict(zip(target.inputs, target.seen, strict=True))
    assert seen[TOKENS.words["we"]] == (80, 90, 90)


def test_a_word_of_the_vocabulary_is_one_token_and_any_other_text_is_kept() -> None:
    assert TOKENIZER.encode(" so happy").ids == [TOKENS.words["so"], TOKENS.words["happy"]]
    odd = TOKENIZER.encode(" zebra é")
    assert TOKENIZER.decode(odd.ids) == " zebra é"
    assert max(odd.ids) < TOKENS.end


@pytest.mark.parametrize(("t_s", "token"), [(0.0, "<|0.00|>"), (1.27, "<|1.28|>"), (40.0, "<|30.00|>")])
def test_times_are_the_nearest_timestamps(t_s: float, token: str) -> None:
    assert TOKENIZER.id_to_token(TOKENS.at(t_s)) == token
