"""Muted sound and pauses: nothing of them is used, and no gap is invented."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.health import Health
from emi_live.intake import Intake, Pauses
from emi_live.rings import AudioBlock, AudioReader, AudioRing, VideoRing
from emi_live.stages.audio import ChunkReader
from tests.support.fakes import FakeClock

BLOCK_NS = NS_PER_S // 50


class Room:
    """An intake on a clock that moves by hand, with a reader on each ring."""

    def __init__(self, *, exact: bool = False) -> None:
        self.clock = FakeClock(100 * NS_PER_S)
        self.health = Health()
        video, audio = VideoRing(64, lossless=True), AudioRing(30.0)
        self.video, self.audio = video.reader(), audio.reader()
        self.pauses = Pauses(self.clock, exact=exact)
        self.intake = Intake(video, audio, self.health, clock=self.clock, pauses=self.pauses)

    def hear(self, blocks: int, rate_hz: int = 16_000, *, late_ns: int = 0, value: float = 0.5) -> None:
        """Sound at real pace, 20 ms a block."""
        for _ in range(blocks):
            self.clock.advance(BLOCK_NS)
            pcm = np.full(rate_hz // 50, value, np.float32)
            self.intake.push_audio(pcm, self.clock.now_ns() - BLOCK_NS - late_ns, rate_hz)

    def samples(self) -> NDArray[np.float32]:
        return np.concatenate([block.samples for block in blocks_of(self.audio)])


def blocks_of(reader: AudioReader) -> list[AudioBlock]:
    blocks = []
    while (block := reader.read(10**9)) is not None:
        blocks.append(block)
    return blocks


def test_muted_sound_is_silence_and_no_gap() -> None:
    room = Room()
    room.hear(10)
    room.pauses.set("muted", True)
    room.hear(10)
    room.pauses.set("muted", False)
    room.hear(10)
    [block] = blocks_of(room.audio)
    assert not block.gap_before
    assert [float(part.max()) for part in np.split(block.samples, 3)] == [0.5, 0.0, 0.5]


def test_what_was_captured_while_muted_is_silence_however_late_it_comes() -> None:
    room = Room()
    room.hear(10, late_ns=5 * BLOCK_NS)
    room.pauses.set("muted", True)
    room.hear(10, late_ns=5 * BLOCK_NS)
    room.pauses.set("muted", False)
    room.hear(10, late_ns=5 * BLOCK_NS)
    loud = room.samples().reshape(30, -1).max(axis=1) > 0
    assert loud.tolist() == [True] * 15 + [False] * 10 + [True] * 5


def test_resampled_sound_is_muted_to_the_sample_and_nothing_rings_on() -> None:
    room = Room()
    room.pauses.set("muted", True)
    room.hear(10, 48_000)
    room.pauses.set("muted", False)
    room.hear(10, 48_000)
    samples = room.samples()
    assert np.abs(samples[: 3_200 - 40]).max() == 0.0  # the resampler's half width is less than 40
    assert samples[3_300:].min() > 0.4


@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_a_program_that_pushes_nothing_while_muted_leaves_no_gap(seconds: float) -> None:
    room = Room()
    chunks = ChunkReader(room.audio, "speech", room.health)
    room.hear(10)
    room.pauses.set("muted", True)
    room.clock.advance(round(seconds * NS_PER_S))
    room.pauses.set("muted", False)
    room.hear(10)
    found = []
    for _ in range(40):
        found += chunks.read()
    assert room.health.snapshot().counters.get("speech.gaps", 0) == 0
    assert not any(chunk.gap_after for chunk in found)
    assert found[-1].end_ns > room.clock.now_ns() - 40_000_000


def test_a_gap_that_no_break_explains_stays_one() -> None:
    room = Room()
    room.pauses.set("muted", True)
    room.hear(5)
    room.pauses.set("muted", False)
    room.hear(50)
    room.clock.advance(NS_PER_S)
    room.hear(5)
    assert [block.gap_before for block in blocks_of(room.audio)] == [False, True]


def test_a_pause_takes_neither_frames_nor_sound() -> None:
    room = Room()
    frame = np.zeros((2, 2, 3), np.uint8)
    for paused in (False, True, False):
        room.pauses.set("paused", paused)
        room.hear(10)
        room.intake.push_frame(frame, room.clock.now_ns() - 1)
    assert room.health.snapshot().counters["video.frames"] == 2
    assert room.video.backlog == 2
    [block] = blocks_of(room.audio)
    assert [float(part.max()) for part in np.split(block.samples, 3)] == [0.5, 0.0, 0.5]


def test_windows_say_what_the_break_was_and_words_stand_while_muted() -> None:
    clock = FakeClock(NS_PER_S)
    pauses = Pauses(clock, exact=False)
    kinds: tuple[Literal["muted", "paused"], ...] = ("muted", "paused")
    for kind in kinds:
        clock.advance(NS_PER_S)
        pauses.set(kind, True)
        clock.advance(NS_PER_S)
        pauses.set(kind, False)
    assert pauses.at(NS_PER_S) == {}
    muted, paused = pauses.at(2 * NS_PER_S), pauses.at(4 * NS_PER_S)
    assert (muted["audio"].state, muted["audio"].detail) == ("paused", "muted")
    assert (muted["text"].state, muted["text"].detail) == ("ok", "muted")
    assert "vision" not in muted
    assert {condition.detail for condition in paused.values()} == {"paused"}
    assert len(paused) == 3
    assert pauses.at(5 * NS_PER_S) == {}


def test_in_exact_mode_a_break_begins_where_the_media_end() -> None:
    room = Room(exact=True)
    pcm = np.full(1_600, 0.5, np.float32)
    for index, muted in enumerate((False, True, True, False)):
        room.pauses.set("muted", muted)
        room.intake.push_audio(pcm, index * NS_PER_S // 10)
    loud = room.samples().reshape(4, -1).max(axis=1) > 0
    assert loud.tolist() == [True, False, False, True]
    assert [bool(room.pauses.at(t * NS_PER_S // 10)) for t in range(4)] == [False, True, True, False]
