from __future__ import annotations

import numpy as np
import pytest

from emi_bench.speech.synthetic import SAMPLE_RATE_HZ, VOICES, is_held_out
from tools.micro_whisper.clips import LEAST_PART, ClipMaker, augment, no_speech


def maker(seed: int = 0, *, held_out: bool = False) -> ClipMaker:
    return ClipMaker(np.random.default_rng(seed), VOICES, speakers=4, augmented=0.0, held_out=held_out)


@pytest.mark.slow
def test_clips_hold_their_words_and_begin_and_end_within_them() -> None:
    source = maker()
    clips = [source.draw(4.0) for _ in range(60)]
    spoken = [clip for clip in clips if clip.sentences]
    assert 40 < len(spoken) <= 60
    for clip in spoken:
        words = [word for sentence in clip.sentences for word in sentence]
        assert all(0.0 <= word.start_s < word.end_s for word in words)
        assert words[-1].end_s <= clip.samples.size / SAMPLE_RATE_HZ + 0.001
        assert [word.start_s for word in words] == sorted(word.start_s for word in words)
    assert sum(clip.goes_on for clip in spoken) > 10
    assert sum(clip.sentences[0][0].start_s == 0.0 for clip in spoken) > 5
    assert sum(len(clip.sentences) > 1 for clip in spoken) > 5


@pytest.mark.slow
def test_a_word_of_which_little_is_heard_is_not_written_down() -> None:
    source = maker(1)
    said = source.draw(6.0, full=True)
    while not said.goes_on:
        said = source.draw(6.0, full=True)
    last = said.sentences[-1][-1]
    sounds = [sound for sound in said.phonemes if last.end_s + 0.01 < sound.end_s <= 6.0]
    assert sum(sound.end_s - sound.start_s for sound in sounds) < 0.9 * LEAST_PART  # no word lasts 0.9 s


def test_the_same_seed_gives_the_same_clips() -> None:
    first, second = maker(5), maker(5)
    for _ in range(3):
        assert np.array_equal(first.draw(3.0).samples, second.draw(3.0).samples)


@pytest.mark.parametrize("held_out", [False, True])
def test_training_never_hears_a_sentence_that_is_held_out(held_out: bool) -> None:
    source = maker(2, held_out=held_out)
    for _ in range(20):
        words = tuple(word.text for word in source.whole().sentences[0])
        assert is_held_out(words) is held_out


def test_whole_clips_are_not_cut_and_fit() -> None:
    clip = maker(3).whole(12.0)
    assert 6.0 < clip.samples.size / SAMPLE_RATE_HZ <= 12.0
    assert len(clip.sentences) > 1
    assert not clip.goes_on


def test_changed_speech_keeps_its_length_and_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    speech = maker(4).whole().samples
    for _ in range(20):
        changed = augment(speech, rng)
        assert changed.shape == speech.shape
        assert changed.dtype == np.float32
        assert np.abs(changed).max() <= 1.0
        assert np.isfinite(changed).all()


def test_sound_without_speech_is_of_several_kinds() -> None:
    rng = np.random.default_rng(0)
    sounds = [no_speech(16_001, rng) for _ in range(30)]
    assert all(sound.shape == (16_001,) and sound.dtype == np.float32 for sound in sounds)
    levels = [float(np.abs(sound).max()) for sound in sounds]
    assert min(levels) == 0.0
    assert 0.05 < max(levels) <= 1.0
