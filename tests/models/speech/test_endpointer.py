from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.speech.incremental import Endpointer

CHUNK = 512
THRESHOLD = 0.5


@dataclass
class Utterances:
    """What an endpointer made of a stream whose samples are numbered, so that each can be recognised."""

    spans: list[list[int]] = field(default_factory=list)
    open: bool = False

    def hear(self, endpointer: Endpointer, probabilities: list[float], *, flush: bool = True) -> None:
        for index, probability in enumerate(probabilities):
            self.take(endpointer.push(numbered(index), probability))
        if flush:
            self.take(endpointer.flush())

    def take(self, blocks: list) -> None:  # type: ignore[type-arg]
        for block in blocks:
            assert block.first != self.open, "a first block opens an utterance, no other does"
            if block.first:
                self.spans.append([])
            self.spans[-1] += [int(sample) for sample in block.samples]
            self.open = not block.last

    @property
    def samples(self) -> list[int]:
        return [sample for span in self.spans for sample in span]


def numbered(index: int) -> NDArray[np.float32]:
    return np.arange(index * CHUNK, (index + 1) * CHUNK, dtype=np.float32)  # exact up to 2^24


def endpointer(silence_s: float = 0.5, preroll_s: float = 0.3) -> Endpointer:
    return Endpointer(THRESHOLD, silence_s, preroll_s)


def test_silence_is_no_utterance() -> None:
    heard = Utterances()
    heard.hear(endpointer(), [0.0, 0.49] * 100)
    assert heard.spans == []


def test_an_utterance_has_its_preroll_and_ends_after_the_silence() -> None:
    heard = Utterances()
    heard.hear(endpointer(), [0.0] * 20 + [0.9] * 30 + [0.1] * 30, flush=False)
    assert len(heard.spans) == 1
    assert not heard.open
    preroll, silence = 9, 16  # whole chunks within 0.3 s; chunks that make 0.5 s
    assert heard.spans[0][0] == (20 - preroll) * CHUNK
    assert heard.spans[0][-1] == (50 + silence) * CHUNK - 1


def test_a_dip_above_the_exit_threshold_is_no_silence() -> None:
    heard = Utterances()
    heard.hear(endpointer(), [0.9] + [0.4] * 100, flush=False)
    assert heard.open
    heard = Utterances()
    heard.hear(endpointer(), [0.9] + [0.34] * 100, flush=False)
    assert not heard.open


def test_a_monologue_is_one_utterance() -> None:
    heard = Utterances()
    heard.hear(endpointer(), [0.9] * 2000)
    assert heard.samples == list(range(2000 * CHUNK))
    assert len(heard.spans) == 1


def test_a_piece_says_how_much_of_it_is_voice() -> None:
    cutter = endpointer()
    cutter.push(numbered(0), 0.1)
    blocks = [cutter.push(numbered(1 + k), p)[0] for k, p in enumerate([0.9, 0.4, 0.1])]
    assert [(block.samples.size, block.voiced) for block in blocks] == [
        (2 * CHUNK, CHUNK),
        (CHUNK, CHUNK),
        (CHUNK, 0),
    ]


def test_a_reset_drops_the_utterance_and_the_preroll() -> None:
    cutter = endpointer()
    cutter.push(numbered(0), 0.1)
    cutter.push(numbered(1), 0.9)
    cutter.reset()
    assert not cutter.speaking
    assert cutter.flush() == []
    (block,) = cutter.push(numbered(2), 0.9)
    assert block.samples[0] == 2 * CHUNK


@given(
    probabilities=st.lists(st.floats(0, 1), max_size=120),
    silence_s=st.floats(0.03, 1.0),
    preroll_s=st.floats(0, 1.0),
)
def test_no_voice_is_lost_and_no_sample_is_said_twice(
    probabilities: list[float], silence_s: float, preroll_s: float
) -> None:
    heard = Utterances()
    heard.hear(endpointer(silence_s, preroll_s), probabilities)
    samples = heard.samples
    assert samples == sorted(set(samples))
    voiced = {index * CHUNK for index, p in enumerate(probabilities) if p >= THRESHOLD}
    assert voiced <= set(samples)
    assert not heard.open
    for span in heard.spans:
        assert span == list(range(span[0], span[-1] + 1))


@pytest.mark.parametrize("silence_s", [0.01, 0.032])
def test_the_shortest_silence_ends_with_one_chunk(silence_s: float) -> None:
    heard = Utterances()
    heard.hear(endpointer(silence_s), [0.9, 0.1, 0.9, 0.1], flush=False)
    assert len(heard.spans) == 2
