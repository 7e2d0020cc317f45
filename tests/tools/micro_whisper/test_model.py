from __future__ import annotations

from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest

from emi_bench.speech.synthetic import HELD_OUT_VOICES, SAMPLE_RATE_HZ, VOICES
from tools.micro_whisper.clips import no_speech
from tools.micro_whisper.evaluation import align_words, load, sentences, transcribe

FOLDER = Path(__file__).parents[2] / "data" / "micro-whisper"
SEED = 4_242  # neither the training's nor the card's


@pytest.fixture(scope="module")
def model() -> Any:
    return load(FOLDER)


def text_of(words: list[Any]) -> str:
    return "".join(word.word for word in words).strip()


def word_error_rate(spoken: list[str], heard: list[str]) -> float:
    return float(jiwer.wer(spoken, [text or "-" for text in heard]))


@pytest.mark.slow
def test_sentences_it_never_heard_are_recognised_and_their_words_are_where_they_sound(model: Any) -> None:
    clips = sentences(12, VOICES, SEED) + sentences(8, HELD_OUT_VOICES, SEED)
    said = [clip.sentences[0] for clip in clips]
    heard = [transcribe(model, clip.samples) for clip in clips]
    texts = [" ".join(word.text for word in words) for words in said]
    assert word_error_rate(texts, [text_of(words) for words in heard]) <= 0.1
    pairs = [pair for one, other in zip(said, heard, strict=True) for pair in align_words(one, other)]
    firsts = {id(words[0]) for words in said}  # faster-whisper lets them begin at 0
    errors = [abs(word.start - spoken.start_s) for spoken, word in pairs if id(spoken) not in firsts]
    assert len(errors) > 50
    assert np.median(errors) <= 0.05
    assert np.mean(np.array(errors) <= 0.15) >= 0.9


def test_where_nothing_is_said_nothing_is_heard(model: Any) -> None:
    rng = np.random.default_rng(SEED)
    sounds = [no_speech(round(rng.uniform(0.5, 8.0) * SAMPLE_RATE_HZ), rng) for _ in range(8)]
    assert [text_of(transcribe(model, sound)) for sound in sounds] == [""] * 8


def test_a_prompt_is_neither_echoed_nor_harmful(model: Any) -> None:
    clips = sentences(6, VOICES, SEED + 1)
    prompt = "they never love the sad music"
    texts = [" ".join(word.text for word in clip.sentences[0]) for clip in clips]
    prompted = [text_of(transcribe(model, clip.samples, initial_prompt=prompt)) for clip in clips]
    assert word_error_rate(texts, prompted) <= 0.15
    assert not any(prompt in text for text in prompted)


def test_buffers_that_end_anywhere_never_make_it_loop(model: Any) -> None:
    (clip,) = sentences(1, VOICES, SEED + 2, longest_s=5.0)
    spoken = [word for sentence in clip.sentences for word in sentence]
    for end_s in np.arange(0.5, clip.samples.size / SAMPLE_RATE_HZ, 0.6):
        words = transcribe(model, clip.samples[: round(end_s * SAMPLE_RATE_HZ)])
        assert len(words) <= 1 + sum(word.start_s < end_s for word in spoken)


def test_the_folder_is_small_and_whole() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert {"model.bin", "config.json", "tokenizer.json", "vocabulary.json", "README.md"} <= set(files)
    assert sum(files.values()) <= 4.5e6
