from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from emi_live.config import WindowConfig
from emi_live.extract.recorder import FOREVER, Recorder, Recording
from emi_live.messages import (
    AudioPacket,
    Packet,
    TextPacket,
    TranscriptPacket,
    VisionPacket,
    Word,
    end_of_stream,
)
from emi_live.window import WindowAssembler
from emi_models import MODALITIES, Modality
from emi_models.data.clip import Clip
from tests.support.fakes import SMALL_SHAPES

MS = 1_000_000
DIMS: dict[Modality, int] = {
    "vision": SMALL_SHAPES.vision_dim,
    "audio": SMALL_SHAPES.audio_dim,
    "text": SMALL_SHAPES.text_dim,
}
TOPICS = ("vision", "audio", "text", "transcript")
# Limits that no packet of these tests is older than: what is left is what a recording holds.
PATIENT = WindowConfig(vision_dropout_s=1e6, audio_dropout_s=1e6, text_dropout_s=1e6)


def picture(t_ms: int, value: float | None) -> VisionPacket:
    features = None if value is None else np.full(DIMS["vision"], value, np.float32)
    return VisionPacket(
        t_ns=t_ms * MS, progress_ns=t_ms * MS, faces=int(value is not None), features=features
    )


def sound(t_ms: int, values: Sequence[float]) -> AudioPacket:
    frames = np.repeat(np.array(values, np.float32)[:, None], DIMS["audio"], axis=1)
    return AudioPacket(t_ns=t_ms * MS, progress_ns=t_ms * MS, frames=frames, last_voice_ns=0)


def text(t_ms: int, value: float | None) -> TextPacket:
    embedding = None if value is None else np.full(DIMS["text"], value, np.float32)
    return TextPacket(
        t_ns=t_ms * MS,
        progress_ns=t_ms * MS,
        embedding=embedding,
        committed="",
        partial="",
        last_word_ns=None if value is None else 0,
    )


def words(t_ms: int, *said: tuple[str, int, bool]) -> TranscriptPacket:
    return TranscriptPacket(
        t_ns=t_ms * MS,
        progress_ns=t_ms * MS,
        words=tuple(Word(word, at_ms * MS, (at_ms + 100) * MS, committed) for word, at_ms, committed in said),
    )


def record(packets: Sequence[Packet], until_ns: int = FOREVER) -> Recording:
    recorder = Recorder(DIMS, TOPICS, until_ns)
    for packet in packets:
        recorder.add(packet)
    return recorder.finish()


def clip_of(recording: Recording) -> Clip:
    tracks = recording.tracks
    return Clip("clip", tracks["vision"], tracks["audio"], tracks["text"], recording.duration_ns)


times_ms = st.lists(st.integers(0, 30_000), max_size=40).map(sorted)
values = st.floats(0.5, 9.0, width=32)


@st.composite
def packet_lists(draw: st.DrawFn) -> list[Packet]:
    """Packets of the three modalities, each in order of time; stamps may come twice, sound may overlap."""
    packets: list[Packet] = []
    for t_ms in draw(times_ms):
        packets.append(picture(t_ms, draw(st.none() | values)))
    for t_ms in draw(times_ms):
        packets.append(sound(t_ms, draw(st.lists(values, max_size=4))))
    for t_ms in sorted(set(draw(times_ms))):
        packets.append(text(t_ms, draw(st.none() | st.sampled_from([1.0, 2.0]))))
    return packets


@given(packet_lists(), st.lists(st.integers(1, 45_000), min_size=1, max_size=6).map(sorted))
def test_a_window_cut_from_the_recording_is_the_one_assembled_from_the_packets(
    packets: list[Packet], ends_ms: list[int]
) -> None:
    clip = clip_of(record(packets))
    assembler = WindowAssembler(PATIENT, SMALL_SHAPES, frozenset(MODALITIES))
    for packet in packets:
        assembler.add(packet)
    for end_ms in ends_ms:
        shown = assembler.assemble(end_ms * MS).inputs
        cut = clip.window(SMALL_SHAPES, end_ms * MS)
        for name in (
            "vision",
            "vision_mask",
            "vision_present",
            "audio",
            "audio_mask",
            "text",
            "text_present",
        ):
            assert torch.equal(getattr(cut, name), getattr(shown, name)), name


@given(packet_lists(), st.integers(0, 35_000))
def test_what_is_newer_than_asked_for_is_left_out_and_nothing_else(
    packets: list[Packet], until_ms: int
) -> None:
    whole, start = record(packets), record(packets, until_ms * MS)
    assert start.duration_ns == min(whole.duration_ns, until_ms * MS)
    for modality, track in start.tracks.items():
        count = int(np.searchsorted(whole.tracks[modality].t_ns, until_ms * MS, side="right"))
        assert np.array_equal(track.t_ns, whole.tracks[modality].t_ns[:count])
        assert np.array_equal(track.values, whole.tracks[modality].values[:count])


def test_text_has_a_row_for_each_change_and_zeros_when_no_words_are_left() -> None:
    packets = [text(t_ms, value) for t_ms, value in enumerate([None, None, 1, 1, 2, None, None, 2])]
    track = record(packets).tracks["text"]
    assert (track.t_ns // MS).tolist() == [2, 4, 5, 7]
    assert track.values[:, 0].tolist() == [1, 2, 0, 2]


def test_the_transcript_keeps_committed_words_for_good_and_the_newest_partial_ones() -> None:
    recording = record(
        [
            words(500, ("i", 100, False)),
            words(1000, ("i", 100, True), ("sink", 300, False)),
            words(1500, ("i", 100, True), ("think", 300, True), ("so", 600, False)),
            words(40_000, ("think", 300, True), ("so", 39_000, True)),  # the first word is over 30 s ago
            words(80_000, ("i", 79_000, True), ("think", 79_500, False)),
        ]
    )
    assert recording.transcript == "i think so i think"


def test_the_end_of_a_stream_says_how_long_it_was_and_not_that_words_are_gone() -> None:
    recording = record([text(700, 1.0), picture(900, None), end_of_stream("text", 1500 * MS)])
    assert recording.duration_ns == 1500 * MS
    assert recording.pictures == 1
    assert len(recording.tracks["text"].t_ns) == 1


def test_it_is_done_once_every_topic_has_passed_the_end() -> None:
    recorder = Recorder(DIMS, ("vision", "audio"), 1000 * MS)
    recorder.add(picture(999, 1.0))
    recorder.add(sound(2000, [1.0]))
    assert not recorder.done
    recorder.add(picture(1000, 1.0))
    assert recorder.done
    assert len(recorder.finish().tracks["audio"].t_ns) == 0


def test_a_recording_says_when_a_voice_counted() -> None:
    def heard(t_ms: int, voice_ms: int | None) -> AudioPacket:
        frames = np.ones((1, DIMS["audio"]), np.float32)
        told = None if voice_ms is None else voice_ms * MS
        return AudioPacket(t_ns=t_ms * MS, progress_ns=t_ms * MS, frames=frames, last_voice_ns=told)

    packets = [heard(500, None), heard(1000, 960), heard(1020, 960), heard(1040, 992), heard(3000, 2900)]
    assert record(packets, 2000 * MS).voice_ns.tolist() == [960 * MS, 992 * MS]
    assert record([heard(500, None)]).voice_ns.tolist() == []
