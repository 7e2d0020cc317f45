from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models.speech.recognizer import RecognizedWord, Recognizer
from tests.models.encoders.media import RATE_HZ, cut, read_sound

pytest.importorskip("pocketsphinx", reason="the extra `pocketsphinx` is not installed")


@pytest.fixture
def recognizer() -> Iterator[Recognizer]:
    from emi_models.speech.sphinx import SphinxRecognizer

    sphinx = SphinxRecognizer()
    yield sphinx
    sphinx.close()


def recognize(
    recognizer: Recognizer, samples: NDArray[np.float32], block: int = 512
) -> tuple[RecognizedWord, ...]:
    recognizer.begin()
    for part in cut(samples, [block]):
        recognizer.accept(part)
    return recognizer.finish().words


def texts(words: Sequence[RecognizedWord]) -> list[str]:
    return [word.text for word in words]


def test_it_recognises_read_speech(recognizer: Recognizer, assets: Path) -> None:
    samples = read_sound(assets / "speech" / "LJ001-0004.wav")
    words = recognize(recognizer, samples)
    assert " ".join(texts(words)).endswith("immediate predecessors of the true printed book")
    ends = [0.0, *(word.end_s for word in words)]
    for word, before in zip(words, ends, strict=False):
        assert before - 0.02 <= word.start_s < word.end_s <= samples.size / RATE_HZ + 0.02
        assert 0 <= word.probability <= 1
        assert word.text.replace("'", "").replace(".", "").isalpha()


def test_words_come_while_one_speaks(recognizer: Recognizer, assets: Path) -> None:
    samples = read_sound(assets / "speech" / "LJ001-0004.wav")
    recognizer.begin()
    assert recognizer.hypothesis().words == ()
    counts = []
    for part in cut(samples, [RATE_HZ]):
        recognizer.accept(part)
        counts.append(len(recognizer.hypothesis().words))
    assert counts[0] == 0  # the first two seconds of a session teach it the microphone
    assert counts == sorted(counts)
    assert counts[2] > 3


def test_it_learns_the_microphone_once(recognizer: Recognizer, assets: Path) -> None:
    samples = read_sound(assets / "speech" / "LJ001-0004.wav")
    recognize(recognizer, samples)
    recognizer.begin()
    recognizer.accept(samples[: RATE_HZ * 3 // 2])
    assert recognizer.hypothesis().words


@pytest.mark.slow
def test_two_runs_give_the_same_words(assets: Path) -> None:
    from emi_models.speech.sphinx import SphinxRecognizer

    clips = [read_sound(assets / "speech" / name) for name in ("LJ001-0002.wav", "librivox_sense_0880.wav")]
    runs = []
    for _ in range(2):
        recognizer = SphinxRecognizer()
        runs.append([recognize(recognizer, clip) for clip in clips])
        recognizer.close()
    assert runs[0] == runs[1]
    assert all(runs[0])


@pytest.mark.slow
def test_what_was_heard_before_is_forgotten_on_demand(recognizer: Recognizer, assets: Path) -> None:
    first, second = (read_sound(assets / "speech" / f"LJ001-000{k}.wav")[: 3 * RATE_HZ] for k in (2, 4))
    fresh = recognize(recognizer, second)
    for forgets in (True, False):
        recognizer.forget()
        recognize(recognizer, first)
        if forgets:
            recognizer.begin()
            recognizer.accept(first)
            recognizer.forget()
        assert (recognize(recognizer, second) == fresh) == forgets


def test_asking_for_words_changes_none(assets: Path) -> None:
    from emi_models.speech.sphinx import SphinxRecognizer

    samples = read_sound(assets / "speech" / "LJ001-0002.wav")
    quiet, curious = SphinxRecognizer(), SphinxRecognizer()
    curious.begin()
    for part in cut(samples, [512]):
        curious.accept(part)
        curious.hypothesis()
    assert curious.finish().words == recognize(quiet, samples)
    quiet.close()
    curious.close()


@pytest.mark.slow
def test_how_the_sound_is_cut_changes_no_word(assets: Path) -> None:
    from emi_models.speech.sphinx import SphinxRecognizer

    samples = read_sound(assets / "speech" / "LJ001-0004.wav")
    heard = []
    for block in (160, 5000, samples.size):
        recognizer = SphinxRecognizer()
        heard.append(recognize(recognizer, samples, block))
        recognizer.close()
    assert heard[0] == heard[1] == heard[2]
    assert len(heard[0]) > 5


@pytest.mark.parametrize("size", [0, 1, 511, 8000])
def test_a_short_utterance_is_harmless(recognizer: Recognizer, size: int) -> None:
    assert recognize(recognizer, np.zeros(size, np.float32)) == ()
    recognizer.begin()
    recognizer.accept(np.full(100, 2.0, np.float32))  # beyond full scale
    recognizer.begin()
    assert recognizer.finish().words == ()


def test_it_prints_nothing(capfd: pytest.CaptureFixture[str], recognizer: Recognizer) -> None:
    recognize(recognizer, np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32))
    assert capfd.readouterr() == ("", "")
