from __future__ import annotations

import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from emi_bench.speech.synthetic import (
    HELD_OUT_VOICES,
    SAMPLE_RATE_HZ,
    VOCABULARY,
    VOICES,
    SpeechUnavailableError,
    Synthesizer,
    draw_sentence,
    is_held_out,
    monologue,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def level(samples: NDArray[np.float32], start_s: float, end_s: float) -> float:
    part = samples[max(0, round(start_s * SAMPLE_RATE_HZ)) : round(end_s * SAMPLE_RATE_HZ)]
    return float(np.sqrt(np.mean(np.square(part))))


def test_an_utterance_has_its_words_in_order_without_gaps_and_ends_with_its_sound() -> None:
    said = Synthesizer().say(["we", "are", "so", "happy"], voice="en-us+f2", rate_wpm=150)
    assert said.text == "we are so happy"
    assert said.samples.dtype == np.float32
    assert 0.05 < np.abs(said.samples).max() <= 1.0
    for word, following in zip(said.words, said.words[1:], strict=False):
        assert word.start_s < word.end_s == following.start_s
    assert said.words[-1].end_s == pytest.approx(said.samples.size / SAMPLE_RATE_HZ, abs=0.001)
    assert level(said.samples, said.words[-1].end_s - 0.06, said.words[-1].end_s) > 0.001


@pytest.mark.parametrize("voice", ["en-us", "en-gb-scotland+f2", HELD_OUT_VOICES[0]])
def test_a_word_sounds_where_it_is_said_to_begin(voice: str) -> None:
    slow = Synthesizer().say(["stop", "amazing"], voice=voice, rate_wpm=120)
    stop, amazing = slow.words
    closed_lips = level(slow.samples, amazing.start_s - 0.05, amazing.start_s)
    vowel = level(slow.samples, amazing.start_s + 0.03, amazing.start_s + 0.13)
    assert vowel > 2 * closed_lips
    assert level(slow.samples, stop.start_s, amazing.start_s) > 0.01


def test_the_same_words_are_the_same_samples_whatever_was_said_before_and_in_another_process() -> None:
    synthesizer = Synthesizer()
    before = synthesizer.say(["i", "love", "music"], voice="en+linda", rate_wpm=140, pitch=40)
    synthesizer.say(["never", "again"], voice="en-us+m1")
    after = synthesizer.say(["i", "love", "music"], voice="en+linda", rate_wpm=140, pitch=40)
    assert np.array_equal(before.samples, after.samples)
    assert before.words == after.words
    code = (
        "import zlib; from emi_bench.speech.synthetic import Synthesizer; "
        "print(zlib.crc32(Synthesizer().say(['i', 'love', 'music'], voice='en+linda', rate_wpm=140, pitch=40)"
        ".samples.tobytes()))"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(there.stdout) == zlib.crc32(before.samples.tobytes())


def test_rate_pitch_and_voice_change_what_is_heard() -> None:
    synthesizer = Synthesizer()
    words = ["you", "need", "two", "people"]
    quick, slow = (synthesizer.say(words, rate_wpm=rate) for rate in (220, 120))
    assert slow.samples.size > 1.3 * quick.samples.size
    high = synthesizer.say(words, rate_wpm=220, pitch=90)
    assert not np.array_equal(high.samples, quick.samples)


def test_words_that_are_spoken_as_one_and_unknown_voices_are_errors() -> None:
    synthesizer = Synthesizer()
    with pytest.raises(SpeechUnavailableError, match="one word"):
        synthesizer.say(["of", "the"])
    with pytest.raises(SpeechUnavailableError, match="no voice 'nobody'"):
        synthesizer.say(["yes"], voice="nobody")


@pytest.mark.slow
def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SpeechUnavailableError, match=r"pip install 'emi-live\[bench\]'") as caught:
        Synthesizer()
    assert "\n" not in str(caught.value)


def test_a_monologue_is_seeded_as_long_as_asked_and_silent_where_no_word_is() -> None:
    talk = monologue(20.0, 3, pause_s=(0.5, 1.0))
    again = monologue(20.0, 3, pause_s=(0.5, 1.0))
    assert np.array_equal(talk.samples, again.samples)
    assert talk.words == again.words
    assert talk.samples.size == 20 * SAMPLE_RATE_HZ
    assert not np.array_equal(talk.samples, monologue(20.0, 4, pause_s=(0.5, 1.0)).samples)
    edges = [0.0, *(word.end_s for word in talk.words)]
    pauses = [
        (end, word.start_s) for end, word in zip(edges, talk.words, strict=False) if word.start_s - end > 0.1
    ]
    assert len(pauses) > 3
    assert all(0.5 <= end - start <= 1.0 for start, end in pauses)
    assert all(level(talk.samples, start + 0.01, end - 0.01) < 1e-4 for start, end in pauses)


@pytest.mark.slow
def test_no_pair_of_words_is_spoken_as_one() -> None:
    synthesizer = Synthesizer()
    for first in VOCABULARY:  # each next to each, in sentences of 20 words
        others = [word for other in VOCABULARY for word in (first, other)]
        for at in range(0, len(others), 40):
            assert len(synthesizer.say(others[at : at + 40], rate_wpm=400).words) == len(others[at : at + 40])


def test_sentences_use_the_vocabulary_and_a_tenth_is_held_out() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_sentence(rng) for _ in range(4_000)]
    assert {word for sentence in drawn for word in sentence} == set(VOCABULARY)
    assert 0.07 < np.mean([is_held_out(sentence) for sentence in drawn]) < 0.13
    assert not set(VOICES) & set(HELD_OUT_VOICES)
