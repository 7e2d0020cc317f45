"""Audio frames that come late, or that replace earlier ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_engine import load_engine
from emi_live.clock import NS_PER_S
from emi_live.config import WindowConfig
from emi_live.messages import AudioPacket, TextPacket, VisionPacket
from emi_live.window import AUDIO_FRAME_NS, WindowAssembler
from emi_models import MODALITIES
from emi_models.inputs import FusionShapes
from tests.engine.conftest import write_checkpoint

SHAPES = FusionShapes(vision_frames=20, vision_dim=3, audio_frames=40, audio_dim=2, text_dim=4)
HOP_FRAMES = 10  # 0.2 s


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def heard(t_s: float, voice: bool = True, until_s: float = 0.0) -> AudioPacket:
    """Sound was processed up to `t_s`, and there is no frame of it yet."""
    return AudioPacket(
        t_ns=ns(t_s),
        progress_ns=ns(until_s),
        frames=np.zeros((0, SHAPES.audio_dim), np.float32),
        last_voice_ns=ns(t_s) if voice else None,
    )


def window_frames(hop: int, span: int = 40, jitter_ns: int = 0, dim: int = 2) -> AudioPacket:
    """All of the last `span` frames as they are after so many hops; a frame holds its number and the hop."""
    stop = HOP_FRAMES * hop
    numbers = np.arange(max(0, stop - span), stop)
    values = np.stack((numbers, np.full(len(numbers), hop)), axis=1).astype(np.float32)
    t_ns = stop * AUDIO_FRAME_NS + jitter_ns
    frames = np.tile(values, dim // 2)
    return AudioPacket(t_ns=t_ns, progress_ns=t_ns, frames=frames, last_voice_ns=t_ns, replaces=True)


def assembler(
    packets: Iterable[AudioPacket] = (),
    trained: frozenset[str] = frozenset(MODALITIES),
    length_s: float = 0.8,
) -> WindowAssembler:
    made = WindowAssembler(WindowConfig(length_s=length_s), SHAPES, trained)  # type: ignore[arg-type] # of Modality
    for packet in packets:
        made.add(packet)
    return made


def test_replacing_frames_get_new_numbers() -> None:
    made = assembler()
    runs = []
    for hop in range(1, 12):
        made.add(window_frames(hop))
        runs.append(made.assemble(hop * HOP_FRAMES * AUDIO_FRAME_NS).stream.audio)
        assert runs[-1].values[:, 1].tolist() == [hop] * min(40, 10 * hop)
        assert runs[-1].values[:, 0].tolist() == list(range(max(0, 10 * hop - 40), 10 * hop))
    assert all(after.start > before.stop for before, after in itertools.pairwise(runs))


def test_frames_before_the_replaced_ones_stay_and_are_renumbered() -> None:
    made = assembler([window_frames(3, span=30), window_frames(4, span=15)])
    run = made.assemble(40 * AUDIO_FRAME_NS).stream.audio
    assert run.values[:, 1].tolist() == [3] * 25 + [4] * 15
    assert run.start > 30


def test_frames_that_are_not_replaced_keep_their_numbers() -> None:
    made = assembler()
    for hop in range(1, 6):
        packet = window_frames(hop, span=10)
        made.add(
            AudioPacket(t_ns=packet.t_ns, progress_ns=packet.t_ns, frames=packet.frames, last_voice_ns=None)
        )
        run = made.assemble(packet.t_ns).stream.audio
        assert run.stop == 10 * hop
        assert run.values[:, 0].tolist() == list(range(run.start, run.stop))


@pytest.mark.parametrize("jitter_ms", [-6, 6])
def test_a_frame_whose_stamp_has_moved_with_the_cards_clock_is_still_the_same(jitter_ms: int) -> None:
    made = assembler([window_frames(3), window_frames(4, span=25, jitter_ns=jitter_ms * 1_000_000)])
    run = made.assemble(41 * AUDIO_FRAME_NS).stream.audio
    assert run.values[:, 0].tolist() == list(range(1, 40))


def test_a_packet_that_comes_after_a_newer_one_is_discarded_and_counted() -> None:
    made = assembler([window_frames(2), window_frames(1)])
    assert made.discarded == 1
    assert made.assemble(20 * AUDIO_FRAME_NS).stream.audio.values[:, 1].tolist() == [2.0] * 20


@given(ahead=st.lists(st.integers(0, 6), min_size=10, max_size=10))
def test_a_window_is_the_same_however_far_ahead_its_packets_are(ahead: list[int]) -> None:
    """It ends between hops: the first packet that reaches its end is the last one used."""
    ends = [(HOP_FRAMES * hop - 3) * AUDIO_FRAME_NS for hop in range(1, 11)]
    made, packets = assembler(), [window_frames(hop, span=50) for hop in range(1, 20)]
    added = 0
    for number, (end_ns, more) in enumerate(zip(ends, ahead, strict=True), 1):
        for packet in packets[added : number + more]:
            made.add(packet)
        added = max(added, number + more)
        assert set(made.assemble(end_ns).stream.audio.values[:, 1].tolist()) == {float(number)}


def test_a_voice_is_live_while_its_frames_are_held_back_but_not_before_the_first() -> None:
    made = assembler([heard(0.1), heard(0.4)])
    early = made.assemble(ns(0.4)).reports["audio"]
    assert (early.state, early.reason, early.used) == ("missing", "no features yet", False)
    made.add(
        AudioPacket(
            t_ns=ns(0.3), progress_ns=ns(0.3), frames=np.ones((10, 2), np.float32), last_voice_ns=ns(0.5)
        )
    )
    for t_s in (0.6, 0.8, 1.0):
        made.add(heard(t_s, until_s=0.3))
    report = made.assemble(ns(1.0)).reports["audio"]
    assert report.state == "live"
    assert report.age_ms == pytest.approx(700)


def test_a_voice_whose_newest_frames_are_too_old_is_not_live() -> None:
    """As when a slow encoder has skipped sound, while the voice in it was found."""
    old = AudioPacket(
        t_ns=ns(0.3), progress_ns=ns(0.3), frames=np.ones((5, 2), np.float32), last_voice_ns=ns(0.3)
    )
    made = assembler([old, *(heard(0.1 * k, until_s=0.3) for k in range(4, 40))], length_s=5.0)
    assert made.assemble(ns(2.3)).reports["audio"].state == "live"
    report = made.assemble(ns(2.4)).reports["audio"]
    assert (report.state, report.reason) == ("missing", "the encoder is behind")


def test_sound_without_a_voice_is_silence_though_its_frames_are_late() -> None:
    first = AudioPacket(
        t_ns=ns(0.3), progress_ns=ns(0.3), frames=np.ones((5, 2), np.float32), last_voice_ns=ns(0.3)
    )
    made = assembler([first, *(heard(0.1 * k, voice=False, until_s=0.3) for k in range(4, 20))])
    assert made.assemble(ns(1.9)).reports["audio"].reason == "silence"
    assert made.assemble(ns(3.0)).reports["audio"].reason == "no audio"


def test_an_encoder_that_cannot_keep_up_is_the_reason() -> None:
    late = AudioPacket(
        t_ns=ns(0.3),
        progress_ns=ns(0.3),
        frames=np.ones((5, 2), np.float32),
        last_voice_ns=ns(0.3),
        behind=True,
    )
    assert assembler([late]).assemble(ns(5.0)).reports["audio"].reason == "the encoder is behind"


def test_frames_of_another_width_are_counted_where_the_network_was_not_trained_on_them() -> None:
    made = assembler([window_frames(4, dim=68)], trained=frozenset({"text"}))
    made.add(VisionPacket(t_ns=ns(0.5), progress_ns=ns(0.5), faces=1, features=np.ones(58, np.float32)))
    words = np.ones(384, np.float32)
    assert made.assemble(ns(0.8)).reports["vision"].frames == 1
    untold = assembler([window_frames(4, dim=68)], trained=frozenset({"vision"}))
    untold.add(
        TextPacket(
            t_ns=ns(0.5),
            progress_ns=ns(0.5),
            embedding=words,
            committed="hi",
            partial="",
            last_word_ns=ns(0.5),
        )
    )
    window = untold.assemble(ns(0.8))
    window.stream.check(SHAPES)
    assert [(r.state, r.used) for r in window.reports.values()][1:] == [("live", False), ("live", False)]
    assert window.reports["audio"].frames == 40


@pytest.mark.parametrize("hops", [60])
def test_an_engine_that_reuses_frames_answers_as_one_that_does_not(tmp_path: Path, hops: int) -> None:
    """Packets that replace, packets that do not, and windows between them, in any order."""
    rng = np.random.default_rng(0)
    path = write_checkpoint(tmp_path / "small.safetensors")
    with load_engine(path, "torch") as plain, load_engine(path, "incremental") as reusing:
        shapes = plain.shapes
        made = WindowAssembler(WindowConfig(length_s=0.8), shapes, frozenset(MODALITIES))
        sessions = plain.session(), reusing.session()
        for hop in range(1, hops):
            again = bool(rng.random() < 0.7)
            count = min(10 * hop, shapes.audio_frames) if again else 10
            frames = rng.normal(size=(count, shapes.audio_dim)).astype(np.float32)
            t_ns = hop * HOP_FRAMES * AUDIO_FRAME_NS
            made.add(
                AudioPacket(t_ns=t_ns, progress_ns=t_ns, frames=frames, last_voice_ns=t_ns, replaces=again)
            )
            for end_ns in (t_ns - ns(0.05), t_ns):
                window = made.assemble(end_ns)
                answers = [session.infer(window.stream) for session in sessions]
                assert np.abs(answers[0] - answers[1]).max() <= 1e-5
