from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.config import AudioConfig
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, AudioPacket, Packet
from emi_live.rings import AudioRing
from emi_live.stages.audio import VOICE_CHUNKS, ProsodyStage
from emi_models.encoders.prosody import FRAME_SAMPLES, HOP_SAMPLES, ProsodyEncoder
from emi_models.encoders.voice_activity import CHUNK_SAMPLES, VoiceGate
from tests.live.stages.fakes import RATE_HZ, LoudnessGate, key, run_stage, sound
from tests.models.encoders.media import cut, read_sound

NS = 1_000_000_000
START_NS = 5 * NS


def make(capacity_s: float = 30.0) -> tuple[AudioRing, ProsodyStage, Health]:
    ring, health = AudioRing(capacity_s), Health()
    gate: Any = LoudnessGate()
    stage = ProsodyStage(ring.reader(), ProsodyEncoder(), gate, AudioConfig(), health)
    return ring, stage, health


def hear(samples: NDArray[np.float32], sizes: list[int]) -> list[Packet]:
    ring, stage, _ = make()
    packets: list[Packet] = []
    written = 0
    for block in cut(samples, sizes):
        ring.write(block, START_NS + written * NS // RATE_HZ)
        written += block.size
        packets += stage.step(0)
    ring.close()
    return packets + run_stage(stage)


def frames(packets: list[Packet]) -> list[AudioPacket]:
    return [packet for packet in packets if isinstance(packet, AudioPacket) and len(packet.frames)]


def test_the_time_of_a_packet_is_the_end_of_its_last_frame() -> None:
    count = 0
    for packet in frames(hear(sound("x.x."), [512])):
        count += len(packet.frames)
        end = (count - 1) * HOP_SAMPLES + FRAME_SAMPLES
        assert packet.t_ns == packet.progress_ns == START_NS + end * NS // RATE_HZ
    assert count == (RATE_HZ - FRAME_SAMPLES) // HOP_SAMPLES + 1


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_any_split_gives_the_same_packets(sizes: list[int]) -> None:
    samples = sound("x..xx.", 0.1)
    assert [key(p) for p in hear(samples, sizes)] == [key(p) for p in hear(samples, [512])]


def test_a_packet_tells_when_its_own_sound_arrived_however_late_it_is_read() -> None:
    ring, stage, _ = make()
    for number in range(6):  # 640 samples each; the first frame ends in write 0, then two in each write
        ring.write(np.zeros(640, np.float32), START_NS + number * 40_000_000, arrived_ns=number + 1)
    assert [packet.arrived_ns for packet in frames(list(stage.step(0)))] == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    ring.write(np.zeros(256, np.float32), START_NS + 240_000_000, arrived_ns=7)
    ring.write(np.zeros(400, np.float32), START_NS + 256_000_000, arrived_ns=8)
    ring.close()
    assert [packet.arrived_ns for packet in frames(run_stage(stage))] == [7, 8]


def test_a_frame_does_not_wait_for_sound_after_its_end() -> None:
    ring, stage, _ = make()
    samples = sound("x.")
    written = 0
    for end in range(FRAME_SAMPLES, samples.size + 1, HOP_SAMPLES):
        ring.write(samples[written : end - 1], START_NS + written * NS // RATE_HZ)
        assert list(stage.step(0)) == []
        ring.write(samples[end - 1 : end], START_NS + (end - 1) * NS // RATE_HZ)
        written = end
        (packet,) = stage.step(0)
        assert packet.t_ns == START_NS + end * NS // RATE_HZ


def test_after_a_failure_frames_are_complete_at_once_again() -> None:
    ring, stage, _ = make()
    samples = sound("xxxx")
    ring.write(samples[:1000], START_NS)
    before = frames(list(stage.step(0)))
    stage.reset()
    ring.write(samples[1000:], START_NS + 1000 * NS // RATE_HZ)
    after = frames(list(stage.step(0)))
    start = FRAME_SAMPLES + HOP_SAMPLES * (len(before) - 1)  # sound that no frame has told is in the next one
    assert after[0].t_ns == START_NS + (start + FRAME_SAMPLES) * NS // RATE_HZ
    assert {len(packet.frames) for packet in after} == {1}


def hum(seconds: float) -> NDArray[np.float32]:
    """A voiced sound of 150 Hz."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone: NDArray[np.float32] = (0.3 * np.sign(np.sin(2 * np.pi * 150 * t))).astype(np.float32)
    return tone


def test_the_newest_voice_is_remembered() -> None:
    quiet = np.zeros(RATE_HZ // 4, np.float32)
    packets = frames(hear(np.concatenate([quiet, hum(1.25), quiet, quiet]), [1600]))
    assert packets[0].last_voice_ns is None
    last = packets[-1].last_voice_ns
    assert last is not None
    assert abs(last - START_NS - 3 * NS // 2) <= 512 * NS // RATE_HZ


def test_a_voice_counts_from_its_28th_chunk_on() -> None:
    assert frames(hear(hum(0.7), [512]))[-1].last_voice_ns is None
    first = next(p for p in frames(hear(hum(1.5), [512])) if p.last_voice_ns is not None)
    assert first.last_voice_ns == START_NS + VOICE_CHUNKS * CHUNK_SAMPLES * NS // RATE_HZ


def test_chunks_of_voice_are_counted_in_the_last_three_seconds() -> None:
    pause = np.zeros(4 * RATE_HZ, np.float32)
    packets = frames(hear(np.concatenate([hum(1.5), pause, hum(0.7)]), [512]))
    last = packets[-1].last_voice_ns
    assert last is not None
    assert abs(last - START_NS - 3 * NS // 2) <= 512 * NS // RATE_HZ
    yes = np.concatenate([hum(0.4), np.zeros(round(1.6 * RATE_HZ), np.float32)])
    assert {p.last_voice_ns for p in frames(hear(np.tile(yes, 6), [512]))} == {None}


def test_a_short_gap_does_not_begin_the_count_again() -> None:
    ring, stage, _ = make()
    ring.write(hum(0.7), 0)
    ring.write(hum(0.7), NS)
    ring.close()
    last = frames(run_stage(stage))[-1].last_voice_ns
    assert last is not None
    assert last > NS


def test_voice_is_told_with_the_frame_that_ends_after_the_gates_chunk() -> None:
    told = 0
    for packet in frames(hear(hum(1.5), [700])):
        heard = (packet.t_ns - START_NS) * RATE_HZ // NS
        whole = heard // CHUNK_SAMPLES * CHUNK_SAMPLES
        if packet.last_voice_ns is not None:
            assert packet.last_voice_ns == START_NS + whole * NS // RATE_HZ
            told += 1
    assert told > 20


def test_voice_after_the_last_frame_is_told_too() -> None:
    # 35 chunks of the gate; the last frame ends before the last chunk does, and only this one and the first
    # 32, a second of voice, have a voice.
    samples = np.concatenate((hum(32 * 512 / RATE_HZ), np.zeros(1024, np.float32), hum(512 / RATE_HZ)))
    packets = hear(samples, [1536])
    assert frames(packets)[-1].last_voice_ns == START_NS + 32 * 512 * NS // RATE_HZ
    told = packets[-2]
    assert isinstance(told, AudioPacket)
    assert told.last_voice_ns == told.t_ns == START_NS + 35 * 512 * NS // RATE_HZ
    assert len(told.frames) == 0
    assert packets[-1].progress_ns == END_OF_STREAM


def test_a_gap_starts_the_frames_afresh() -> None:
    ring, stage, health = make()
    ring.write(sound("x"), 0)
    ring.write(sound("x"), 10 * NS)
    ring.close()
    packets = frames(run_stage(stage))
    first_after = next(packet for packet in packets if packet.t_ns > 9 * NS)
    assert first_after.t_ns - len(first_after.frames) * HOP_SAMPLES * NS // RATE_HZ >= 10 * NS
    # Nothing of what came before is in the first frame after it: it equals the first of all.
    assert first_after.frames[0].tobytes() == packets[0].frames[0].tobytes()
    assert health.snapshot().counters["audio.gaps"] == 1


def test_overwritten_sound_is_counted() -> None:
    ring, stage, health = make(capacity_s=1.0)
    for n in range(10):
        ring.write(sound("x"), n * NS // 4)
    ring.close()
    packets = run_stage(stage)
    assert health.snapshot().counters["audio.lost_samples"] == 3 * RATE_HZ // 2
    assert packets[0].t_ns > 3 * NS // 2


def test_voice_is_heard_until_speech_stops(assets: Path) -> None:
    samples = read_sound(assets / "av" / "face_throughout_speech_stops_at_5s.mp4")
    ring = AudioRing()
    stage = ProsodyStage(ring.reader(), ProsodyEncoder(), VoiceGate(), AudioConfig(), Health())
    ring.write(samples, 0)
    ring.close()
    last = frames(run_stage(stage))[-1]
    assert last.t_ns > 12 * NS
    assert last.last_voice_ns is not None
    assert 4 * NS < last.last_voice_ns < 6 * NS
