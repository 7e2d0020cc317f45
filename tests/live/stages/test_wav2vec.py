from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.config import AudioConfig
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, AudioPacket, Packet
from emi_live.rings import AudioRing
from emi_live.stages.audio import Wav2vecStage
from emi_models.encoders import prosody, wav2vec
from emi_models.encoders.wav2vec import Wav2vecEncoder, frame_ends_ns, frames_for
from emi_models.encoders.wav2vec_stream import SlidingWav2vec, StreamingWav2vec
from tests.live.stages.fakes import RATE_HZ, LoudnessGate, StepModel, WindowModel, key, run_stage, sound
from tests.models.encoders.media import cut
from tests.models.encoders.tiny_models import SPEECH, tiny_speech

NS = 1_000_000_000
START_NS = 5 * NS
HOP = RATE_HZ // 2


class Rig:
    """The stage on a ring, with fakes."""

    def __init__(self, model: Any = None, *, exact: bool = False, capacity_s: float = 30.0) -> None:
        self.model: Any = model or StepModel()
        config = AudioConfig(context="full" if isinstance(model, WindowModel | SlidingWav2vec) else "cached")
        self.ring, self.health = AudioRing(capacity_s), Health()
        gate: Any = LoudnessGate()
        self.stage = Wav2vecStage(self.ring.reader(), self.model, gate, config, self.health, exact=exact)

    def hear(self, samples: NDArray[np.float32], sizes: list[int]) -> list[AudioPacket]:
        """All packets of a sound that comes in such blocks, but for the last."""
        packets: list[Packet] = []
        written = 0
        for block in cut(samples, sizes):
            self.ring.write(block, START_NS + written * NS // RATE_HZ, arrived_ns=written + block.size)
            written += block.size
            packets += self.stage.step(0)
        return self.end(packets)

    def end(self, packets: list[Packet] | None = None) -> list[AudioPacket]:
        self.ring.close()
        found = [*(packets or []), *run_stage(self.stage)]
        assert found[-1].progress_ns == END_OF_STREAM
        return [packet for packet in found[:-1] if isinstance(packet, AudioPacket)]

    @property
    def counters(self) -> dict[str, int]:
        return self.health.snapshot().counters


def frames(packets: list[AudioPacket]) -> list[AudioPacket]:
    return [packet for packet in packets if len(packet.frames)]


def ramp(seconds: float) -> NDArray[np.float32]:
    """Each sample is its number, in millionths: what a frame says of itself can be checked."""
    return np.arange(round(seconds * RATE_HZ), dtype=np.float32) / np.float32(2**20)


def last_sample(packet: AudioPacket) -> int:
    """The number of the last sample of the packet's newest frame."""
    return round(float(packet.frames[-1, 1]) * 2**20)


@pytest.mark.parametrize("model", [StepModel, WindowModel])
def test_the_time_of_a_packet_is_the_end_of_its_newest_frame(model: type[Any]) -> None:
    found = frames(Rig(model(), exact=True).hear(ramp(4.3), [700]))
    assert len(found) > 8
    for packet in found:
        ends = last_sample(packet) + 1
        assert packet.t_ns == packet.progress_ns == START_NS + ends * NS // RATE_HZ
        assert 0 <= packet.arrived_ns - ends < 512 + 700  # the block that brought that sample
    assert (last_sample(found[-1]) + 1 - 400) // 320 + 1 == frames_for(round(4.3 * RATE_HZ))


def test_each_frame_is_said_once_and_what_is_held_back_at_the_end() -> None:
    found = frames(Rig().hear(ramp(4.3), [512]))
    said = np.concatenate([packet.frames for packet in found])
    wanted = 320 * np.arange(frames_for(round(4.3 * RATE_HZ)))
    assert np.array_equal(np.round(said[:, 0] * 2**20), wanted)
    assert not any(packet.replaces for packet in found)
    assert len(found[-1].frames) > 12


def test_frames_that_replace_earlier_ones_are_marked() -> None:
    found = frames(Rig(WindowModel(), exact=True).hear(ramp(3.2), [512]))
    assert all(packet.replaces for packet in found)
    assert [len(packet.frames) for packet in found] == [25, 50, 75, 100, 100, 100, 100]


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=5), st.sampled_from([StepModel, WindowModel]))
@settings(max_examples=20, deadline=None)
def test_in_exact_mode_any_split_gives_the_same_packets(sizes: list[int], model: type[Any]) -> None:
    samples = sound("x..xx.x", 0.3)

    def without_arrival(packet: Packet) -> tuple[object, ...]:
        return tuple(value for value in key(packet) if value != packet.arrived_ns)

    split = [without_arrival(packet) for packet in Rig(model(), exact=True).hear(samples, sizes)]
    assert split == [without_arrival(packet) for packet in Rig(model(), exact=True).hear(samples, [512])]


def test_voice_and_hearing_are_told_before_the_frames_are() -> None:
    packets = Rig().hear(sound(".xx.....", 0.25), [512])
    told = next(packet for packet in packets if packet.last_voice_ns is not None)
    assert len(told.frames) == 0
    assert START_NS + NS // 4 < told.t_ns < START_NS + NS // 4 + 40_000_000
    assert told.progress_ns < told.t_ns
    heard = [packet.t_ns for packet in packets if not len(packet.frames)]
    assert max(np.diff(heard)) < 70_000_000  # a chunk, or two where frames come between


def test_at_a_gap_what_is_held_back_is_said_and_all_starts_afresh() -> None:
    rig = Rig()
    rig.ring.write(ramp(1.3), 0)
    rig.ring.write(ramp(1.3), 10 * NS)
    packets = frames(rig.end())
    before = [packet for packet in packets if packet.t_ns < 5 * NS]
    after = [packet for packet in packets if packet.t_ns > 5 * NS]
    assert sum(len(packet.frames) for packet in before) == frames_for(round(1.3 * RATE_HZ))
    assert np.array_equal(
        np.concatenate([packet.frames for packet in before]),
        np.concatenate([packet.frames for packet in after]),
    )
    assert after[0].t_ns - (len(after[0].frames) - 1) * 20_000_000 == 10 * NS + 25_000_000
    assert rig.counters["audio.gaps"] == 1


def test_live_hops_that_more_sound_has_followed_are_passed_over_and_counted() -> None:
    slow, prompt = Rig(WindowModel()), Rig(WindowModel())
    prompt.hear(ramp(5.0), [512])
    slow.ring.write(ramp(5.0), START_NS)
    found = frames(slow.end())
    assert prompt.counters.get("audio.coalesced", 0) == 0
    assert prompt.model.asked == 10
    assert slow.model.asked <= 3
    assert slow.counters["audio.coalesced"] >= 7
    assert last_sample(found[-1]) == last_sample(
        frames(Rig(WindowModel(), exact=True).hear(ramp(5.0), [512]))[-1]
    )


def test_in_exact_mode_no_hop_is_passed_over() -> None:
    rig = Rig(WindowModel(), exact=True)
    rig.ring.write(ramp(5.0), START_NS)
    rig.end()
    assert rig.model.asked == 10
    assert "audio.coalesced" not in rig.counters or rig.counters["audio.coalesced"] == 0


@pytest.mark.parametrize("model", [StepModel, WindowModel])
def test_a_model_that_is_slower_than_the_sound_is_said_to_be(model: type[Any]) -> None:
    rig = Rig(model())
    said: list[Packet] = []
    for number in range(8):  # a step takes a quarter of a second of sound, and a half comes meanwhile
        rig.ring.write(sound("xx"), number * NS // 2)
        said += rig.stage.step(0)
    status = rig.health.status("audio")
    assert "behind: the speech model is slower than the sound" in status.detail
    assert rig.counters["audio.fell_behind"] == 1
    behind = [packet.behind for packet in said if isinstance(packet, AudioPacket)]
    assert not behind[0]
    assert behind[-1]
    rig.end()
    assert rig.health.status("audio").detail == "keeps up again"


def test_a_model_that_is_far_behind_goes_on_with_what_comes() -> None:
    """Of 8 s that wait, it is given the last half second and what follows; voice is listened to in all."""
    rig = Rig()
    samples = ramp(10.0)
    rig.ring.write(samples[: 8 * RATE_HZ], START_NS)
    packets: list[Packet] = []
    for _ in range(40):  # a quarter of a second each: all that waits
        packets += rig.stage.step(0)
    rig.ring.write(samples[8 * RATE_HZ :], START_NS + 8 * NS)
    said = rig.end(packets)
    skipped = rig.counters["audio.skipped_samples"]
    assert 7 * RATE_HZ < skipped < 8 * RATE_HZ
    found = frames(said)
    first = round(float(found[0].frames[0, 0]) * 2**20)
    assert first == skipped
    for packet in found:
        assert packet.t_ns == START_NS + (last_sample(packet) + 1) * NS // RATE_HZ
    heard = [packet.t_ns for packet in said if not len(packet.frames)]
    assert max(np.diff(heard)) < 70_000_000
    assert all(packet.progress_ns < packet.t_ns for packet in said if not len(packet.frames))


def test_what_is_held_back_is_lost_with_what_is_skipped_and_no_frame_is_said_twice() -> None:
    rig = Rig()
    rig.ring.write(ramp(1.3), 0)
    early = [packet for _ in range(8) for packet in rig.stage.step(0)]
    rig.ring.write(ramp(4.0), round(1.3 * NS))
    found = frames(rig.end([*early, *rig.stage.step(0)]))
    times = [packet.t_ns for packet in found]
    assert times == sorted(set(times))
    starts = [packet.t_ns - (len(packet.frames) - 1) * 20_000_000 for packet in found]
    assert all(start > before for start, before in zip(starts[1:], times, strict=False))


def test_in_exact_mode_nothing_is_behind() -> None:
    rig = Rig(exact=True)
    rig.ring.write(ramp(6.0), 0)
    assert not any(packet.behind for packet in rig.end())
    assert not {"audio.fell_behind", "audio.skipped_samples"} & set(rig.counters)


def test_sound_that_is_overwritten_is_a_gap_and_counted() -> None:
    rig = Rig(capacity_s=1.0)
    for number in range(10):
        rig.ring.write(sound("x"), number * NS // 4)
    packets = rig.end()
    assert rig.counters["audio.lost_samples"] == 3 * RATE_HZ // 2
    assert packets[0].t_ns > 3 * NS // 2


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Wav2vecEncoder:
    torch.set_num_threads(1)
    return Wav2vecEncoder(tiny_speech(tmp_path_factory.mktemp("speech"))[0], SPEECH)


@pytest.mark.parametrize("context", ["cached", "recompute", "full"])
def test_the_real_models_frames_have_their_times(encoder: Wav2vecEncoder, context: Any) -> None:
    samples = sound("x.xx.x.xxx.x", 0.25)
    model = SlidingWav2vec(encoder) if context == "full" else StreamingWav2vec(encoder, strategy=context)
    found = frames(Rig(model, exact=True).hear(samples, [900]))
    ends = START_NS + frame_ends_ns(frames_for(samples.size))
    assert found[-1].t_ns == ends[-1]
    if context == "full":
        assert np.array_equal(found[-1].frames, encoder.encode(samples))
    else:
        assert sum(len(packet.frames) for packet in found) == len(ends)


def test_a_real_voice_is_live(assets: Path, encoder: Wav2vecEncoder) -> None:
    from emi_models.encoders.voice_activity import VoiceGate
    from tests.models.encoders.media import read_sound

    ring, health = AudioRing(), Health()
    model = StreamingWav2vec(encoder)
    stage = Wav2vecStage(ring.reader(), model, VoiceGate(), AudioConfig(), health, exact=True)
    ring.write(read_sound(assets / "av" / "face_throughout_speech_stops_at_5s.mp4"), 0)
    ring.close()
    last = [packet for packet in run_stage(stage) if isinstance(packet, AudioPacket)][-2]
    assert last.t_ns > 12 * NS
    assert last.last_voice_ns is not None
    assert 4 * NS < last.last_voice_ns < 6 * NS


def test_frames_of_both_encoders_cover_the_same_samples() -> None:
    """The stages count both with one pair of constants."""
    assert (wav2vec.FRAME_SAMPLES, wav2vec.HOP_SAMPLES) == (prosody.FRAME_SAMPLES, prosody.HOP_SAMPLES)
