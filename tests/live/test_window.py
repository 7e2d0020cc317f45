from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from emi_live.clock import NS_PER_S
from emi_live.config import WindowConfig
from emi_live.messages import (
    END_OF_STREAM,
    NOTHING_YET,
    AudioPacket,
    Packet,
    TextPacket,
    TranscriptPacket,
    VisionPacket,
    end_of_stream,
)
from emi_live.window import LOST, Condition, Window, WindowAssembler
from emi_models import MODALITIES
from emi_models.baseline import baselines_for
from emi_models.calibration import NONE, Calibration, IntervalTable
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.inputs import FusionShapes
from tests.live.bus.packets import estimate

SHAPES = FusionShapes(vision_frames=20, vision_dim=3, audio_frames=40, audio_dim=2, text_dim=4)
FRAME_NS = 100_000_000


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def face(t_s: float, value: float | None = 1.0) -> VisionPacket:
    features = None if value is None else np.full(SHAPES.vision_dim, value, np.float32)
    return VisionPacket(t_ns=ns(t_s), progress_ns=ns(t_s), faces=0 if value is None else 1, features=features)


def sound(t_s: float, frames: int = 5, voice_s: float | None = None) -> AudioPacket:
    return AudioPacket(
        t_ns=ns(t_s),
        progress_ns=ns(t_s),
        frames=np.full((frames, SHAPES.audio_dim), t_s, np.float32),
        last_voice_ns=None if voice_s is None else ns(voice_s),
    )


def words(t_s: float, last_s: float | None, text: str = "hello") -> TextPacket:
    return TextPacket(
        t_ns=ns(t_s),
        progress_ns=ns(t_s),
        embedding=None if last_s is None else np.ones(SHAPES.text_dim, np.float32),
        committed=text,
        partial="",
        last_word_ns=None if last_s is None else ns(last_s),
    )


def assembler(
    packets: Iterable[Packet] = (),
    length_s: float = 2.0,
    trained: frozenset[str] = frozenset(MODALITIES),
    spans_s: Mapping[str, float] | None = None,
) -> WindowAssembler:
    made = WindowAssembler(WindowConfig(length_s=length_s), SHAPES, trained, spans_s)  # type: ignore[arg-type] # of Modality
    for packet in packets:
        made.add(packet)
    return made


def everything(until_s: float) -> list[Packet]:
    packets: list[Packet] = [face(0.1 * i, i) for i in range(1, round(until_s * 10) + 1)]
    packets += [sound(0.1 * i, 5, 0.1 * i) for i in range(1, round(until_s * 10) + 1)]
    packets += [words(0.2 * i, 0.2 * i) for i in range(1, round(until_s * 5) + 1)]
    return packets


def states(window: Window) -> dict[str, str]:
    return {name: report.state for name, report in window.reports.items()}


def test_a_full_window_is_live_and_padded_with_masks() -> None:
    window = assembler(everything(5.0)).assemble(ns(5.0))

    assert states(window) == {"vision": "live", "audio": "live", "text": "live"}
    assert window.inputs.vision_mask.sum() == 20
    assert window.inputs.vision[0, -1, 0] == 50
    assert window.inputs.audio_mask.shape == (1, 40)
    assert bool(window.inputs.audio_mask.all())
    window.inputs.check(SHAPES)


def test_a_short_past_leaves_the_rest_masked_and_zero() -> None:
    window = assembler(everything(0.5)).assemble(ns(0.5))

    assert window.inputs.vision_mask[0].tolist() == [True] * 5 + [False] * 15
    assert not window.inputs.vision[0, 5:].any()
    assert window.reports["audio"].frames == 25


def test_nothing_newer_than_the_window_enters_it() -> None:
    early = assembler(everything(1.0)).assemble(ns(1.0))
    late = assembler(everything(9.0)[:90]).assemble(ns(1.0))

    assert np.array_equal(early.inputs.vision, late.inputs.vision)
    assert late.reports["vision"].age_ms == 0


def test_a_face_is_missing_only_once_its_dropout_time_is_over() -> None:
    made = assembler([face(1.0), *(face(1.0 + 0.1 * i, None) for i in range(1, 30))])

    on_time = made.assemble(ns(2.0))
    assert on_time.reports["vision"].state == "live"
    assert bool(on_time.inputs.vision_present)
    too_late = made.assemble(ns(2.1))
    assert too_late.reports["vision"].state == "missing"
    assert too_late.reports["vision"].reason == "no face"
    assert too_late.reports["vision"].age_ms == pytest.approx(1100)
    assert not bool(too_late.inputs.vision_present)


def test_a_face_that_cannot_be_read_is_missing_with_its_reason() -> None:
    unread = [replace(face(1.0 + 0.1 * i, None), faces=1, reason="face rolled") for i in range(1, 15)]
    made = assembler([face(1.0), *unread, face(2.5, None)])
    assert made.assemble(ns(1.9)).reports["vision"].state == "live"
    assert made.assemble(ns(2.4)).reports["vision"].reason == "face rolled"
    assert made.assemble(ns(2.6)).reports["vision"].reason == "no face"


def test_words_that_may_change_and_old_faces_count_as_partly_lost() -> None:
    made = assembler([face(1.0), *(face(1.0 + 0.1 * i, None) for i in range(1, 30))])
    assert made.assemble(ns(1.4)).gone == 0.0
    assert made.assemble(ns(1.75)).gone == pytest.approx(0.5)
    assert made.assemble(ns(2.0)).gone == pytest.approx(1.0)
    assert made.assemble(ns(2.5)).gone == LOST  # no longer used


def test_beside_words_a_face_that_is_lost_widens_intervals_and_one_that_never_came_does_not() -> None:
    said = [words(0.1 * i, 0.1 * i) for i in range(1, 40)]
    alone = assembler(said)
    assert alone.assemble(ns(3.5)).gone == 0.0
    made = assembler([*said, *(face(0.1 * i, None if i > 10 else 0.5) for i in range(1, 40))])
    assert made.assemble(ns(1.0)).gone == 0.0
    lost = made.assemble(ns(3.5))
    assert (lost.reports["text"].used, lost.reports["vision"].used, lost.gone) == (True, False, LOST)
    tables = {
        name: {"joy": IntervalTable((), (width,), (width,), 100)}
        for name, width in (("vision", 0.1), ("text", 0.1), (NONE, 0.5))
    }
    calibration = Calibration(tables)
    before = calibration.intervals([0.5] * 6, ("vision", "text"))[5]
    after = calibration.intervals([0.5] * 6, ("text",), lost.gone)[5]
    assert before == pytest.approx((0.4, 0.6))
    assert after == pytest.approx((0.3, 0.7))  # a quarter of the way from 0.1 to 0.5


def test_no_face_no_frames_silence_and_no_audio_are_different_reasons() -> None:
    talking = [face(0.5), sound(0.5, 5, 0.5), words(0.5, 0.5)]
    watched = assembler([*talking, *(face(0.5 + i / 10, None) for i in range(1, 20))]).assemble(ns(2.0))
    unseen = assembler(talking).assemble(ns(2.0))
    hushed = assembler([*talking, *(sound(0.5 + i / 10, 5, 0.5) for i in range(1, 20))]).assemble(ns(2.0))

    assert watched.reports["vision"].reason == "no face"
    assert unseen.reports["vision"].reason == "no frames"
    assert hushed.reports["audio"].reason == "silence"
    assert unseen.reports["audio"].reason == "no audio"
    assert watched.reports["text"].state == "live"
    assert assembler(talking).assemble(ns(6.6)).reports["text"].reason == "no words"


def test_a_face_whose_features_come_late_is_not_reported_as_no_face() -> None:
    seen = VisionPacket(t_ns=ns(1.9), progress_ns=ns(1.9), faces=1, features=None, behind=True)
    assert assembler([face(0.5), seen]).assemble(ns(2.0)).reports["vision"].reason == "the encoder is behind"
    gone = VisionPacket(t_ns=ns(1.95), progress_ns=ns(1.95), faces=0, features=None, behind=True)
    assert assembler([face(0.5), seen, gone]).assemble(ns(2.0)).reports["vision"].reason == "no face"


@pytest.mark.parametrize("state", ["failed", "unavailable"])
def test_a_failed_part_is_the_reason_once_its_evidence_is_stale(state: str) -> None:
    condition = Condition(state, "camera unplugged")  # type: ignore[arg-type] # the parameter is one of its literals
    made = assembler([face(0.9)])

    assert made.assemble(ns(1.0), {"vision": condition}).reports["vision"].state == "live"
    later = made.assemble(ns(2.0), {"vision": condition}).reports["vision"]
    assert (later.state, later.reason) == (state, "camera unplugged")


def test_an_absent_source_is_missing_and_says_so() -> None:
    report = assembler().assemble(ns(1.0), {"vision": Condition("absent")}).reports["vision"]
    assert (report.state, report.reason, report.age_ms) == ("missing", "no source", None)


def test_a_modality_the_checkpoint_never_saw_is_shown_but_not_used() -> None:
    window = assembler(everything(1.0), trained=frozenset({"text"})).assemble(ns(1.0))
    assert {name: report.used for name, report in window.reports.items()} == {
        "vision": False,
        "audio": False,
        "text": True,
    }
    assert states(window)["vision"] == "live"


def test_sensed_time_is_that_of_the_staler_stream_whatever_it_shows() -> None:
    assert assembler([face(0.8), sound(0.9, 5, 0.9)]).assemble(ns(1.0)).sensed_ns == ns(0.8)
    assert assembler([face(0.8, None), sound(0.9, 5)]).assemble(ns(1.0)).sensed_ns == ns(0.8)
    assert assembler([face(0.8), sound(1.9, 5)]).assemble(ns(2.0)).sensed_ns == ns(1.9)
    assert assembler([words(0.9, 0.9)]).assemble(ns(1.0)).sensed_ns is None


def test_more_frames_than_fit_keep_the_newest() -> None:
    window = assembler(face(0.01 * i, i) for i in range(1, 101)).assemble(ns(1.0))
    assert window.inputs.vision[0, :, 0].tolist() == [float(i) for i in range(81, 101)]


def test_a_checkpoint_is_shown_only_its_span_of_a_modality() -> None:
    made = assembler(everything(2.0), spans_s={"vision": 0.3, "audio": 1.0})
    window = made.assemble(ns(2.0))

    assert window.inputs.vision[0, :4, 0].tolist() == [18.0, 19.0, 20.0, 0.0]
    assert window.inputs.vision_mask.sum() == 3
    assert {name: window.reports[name].frames for name in ("vision", "audio")} == {"vision": 3, "audio": 50}
    assert window.inputs.audio[0, 0, 0] == pytest.approx(1.3)  # the 40 newest fit, of 50
    assert states(window) == {"vision": "live", "audio": "live", "text": "live"}


def test_a_lost_face_shows_its_last_span_until_its_dropout_time_is_over() -> None:
    made = assembler(
        [*(face(0.1 * i, i) for i in range(1, 11)), *(face(1.0 + 0.1 * i, None) for i in range(1, 20))],
        spans_s={"vision": 0.3},
    )
    held = made.assemble(ns(1.9))
    assert held.reports["vision"].state == "live"
    assert held.reports["vision"].age_ms == pytest.approx(900)
    assert held.inputs.vision[0, :4, 0].tolist() == [8.0, 9.0, 10.0, 0.0]
    gone = made.assemble(ns(2.1))
    assert gone.reports["vision"].state == "missing"
    assert not bool(gone.inputs.vision_present)


def test_a_span_longer_than_the_window_is_the_window() -> None:
    plain, spanned = (
        assembler(everything(3.0), spans_s=spans_s).assemble(ns(3.0)) for spans_s in (None, {"vision": 12.0})
    )
    assert np.array_equal(plain.inputs.vision, spanned.inputs.vision)
    assert plain.reports == spanned.reports


def test_late_and_disordered_packets_are_discarded_and_counted() -> None:
    made = assembler(everything(5.0))
    made.assemble(ns(5.0))
    for packet in (face(1.0), sound(1.0), words(1.0, 1.0)):
        made.add(packet)
    assert made.discarded == 3


def test_ready_waits_for_every_stream_and_closing_one_is_an_answer() -> None:
    made = assembler([face(1.0), sound(1.2)])
    assert not made.ready(ns(1.0))
    made.close("text")
    assert made.ready(ns(1.0))
    assert not made.ready(ns(1.1))
    for topic in ("vision", "audio"):
        made.add(end_of_stream(topic))
    assert made.ready(END_OF_STREAM)


def test_the_end_of_the_words_does_not_take_them_back() -> None:
    made = assembler([words(1.0, 1.0), end_of_stream("text", ns(1.0))])
    assert made.assemble(ns(1.2)).reports["text"].committed == "hello"


def test_progress_without_content_changes_nothing_else() -> None:
    made = assembler([face(1.0), VisionPacket(t_ns=ns(3), progress_ns=ns(3), faces=-1, features=None)])
    assert made.progress_ns("vision") == ns(3)
    assert made.assemble(ns(2.5)).reports["vision"].reason == "no frames"


def test_a_packet_of_another_topic_is_refused() -> None:
    with pytest.raises(TypeError, match="TranscriptPacket"):
        assembler([TranscriptPacket(t_ns=0, progress_ns=0, words=())])


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), hop=st.sampled_from([0.1, 0.2, 0.5]))
def test_the_order_of_arrival_between_streams_does_not_matter(seed: int, hop: float) -> None:
    """Exact mode's promise: once all streams have passed an instant, its window is settled."""
    streams = [[p for p in everything(4.0) if p.topic == topic] for topic in MODALITIES]
    plain, shuffled = assembler(), assembler()
    generator = random.Random(seed)  # noqa: S311 # an order of arrival, not a secret
    order = [topic for topic, stream in enumerate(streams) for _ in stream]
    generator.shuffle(order)
    queues = [iter(stream) for stream in streams]
    ends = list(itertools.takewhile(lambda end: end <= 4.0, (hop * k for k in range(1, 1000))))
    for packet in itertools.chain(*streams):
        plain.add(packet)
    expected = [plain.assemble(ns(end)) for end in ends]
    due = list(ends)
    for topic in order:
        shuffled.add(next(queues[topic]))
        while due and shuffled.ready(ns(due[0])):
            window = shuffled.assemble(ns(due.pop(0)))
            wanted = expected[len(ends) - len(due) - 1]
            assert window.reports == wanted.reports
            for one, other in zip(window.inputs.tensors(), wanted.inputs.tensors(), strict=True):
                assert np.array_equal(one, other)
    assert not due


def test_an_hour_of_packets_keeps_its_memory() -> None:
    made = assembler()
    for i in range(1, 36_001):
        made.add(face(0.1 * i))
        made.add(sound(0.1 * i, 5, 0.1 * i))
        if i % 2 == 0:
            made.assemble(ns(0.1 * i))
    assert made._vision._values.shape[0] <= 4 * SHAPES.vision_frames
    assert len(made._seen) <= 21
    assert len(made._sound._voices) <= 21
    assert len(made._sound._processed) <= 21


def test_what_comes_later_than_promised_is_left_out_and_counted() -> None:
    promise = VisionPacket(t_ns=ns(1.0), progress_ns=ns(3.0), faces=-1, features=None)
    silence = AudioPacket(
        t_ns=ns(1.0), progress_ns=ns(3.0), frames=np.zeros((0, 0), np.float32), last_voice_ns=None
    )
    made = assembler([face(1.0), sound(1.0, voice_s=1.0), promise, silence, face(2.0), sound(2.0)])
    assert made.discarded == 2
    window = made.assemble(ns(2.5))
    assert window.reports["vision"].frames == 1
    assert window.reports["audio"].frames == 5


def test_a_promise_before_the_first_media_shows_nothing_and_is_waited_for_no_more() -> None:
    made = assembler()
    until_ns = ns(70.0)
    made.add(VisionPacket(t_ns=NOTHING_YET, progress_ns=until_ns, faces=-1, features=None))
    made.add(
        AudioPacket(
            t_ns=NOTHING_YET, progress_ns=until_ns, frames=np.zeros((0, 0), np.float32), last_voice_ns=None
        )
    )
    made.add(
        TextPacket(
            t_ns=NOTHING_YET,
            progress_ns=until_ns,
            embedding=None,
            committed="",
            partial="",
            last_word_ns=None,
        )
    )
    assert made.ready(ns(70.0))
    reasons = {name: report.reason for name, report in made.assemble(ns(0.2)).reports.items()}
    assert reasons == {"vision": "no frames", "audio": "no audio", "text": "no audio"}
    assert made.discarded == 0


def talk(until_s: float, from_s: float = 0.1) -> list[Packet]:
    """Sound until then, with a voice since `from_s`."""
    return [sound(i / 10, 5, i / 10 if i / 10 >= from_s else None) for i in range(1, round(until_s * 10) + 1)]


def test_the_language_of_the_words_is_in_the_report_and_the_json_line() -> None:
    for language in (None, "de"):
        made = assembler([*talk(3.0), replace(words(2.5, 2.0), language=language)])
        report = made.assemble(ns(2.5)).reports["text"]
        assert report.language == language
        modalities = {**estimate().modalities, "text": report}
        line = replace(estimate(), modalities=modalities).to_json()
        assert line["modalities"]["text"].get("language", "none") == (language or "none")


def told(t_s: float, *, behind: bool = False, behind_s: float = 0.0, left_out_s: float = 0.0) -> TextPacket:
    """No words, as known at `t_s`."""
    return replace(words(t_s, None, ""), behind=behind, behind_s=behind_s, left_out_s=left_out_s)


def why_no_words(packets: Iterable[Packet], *ends_s: float) -> list[str | None]:
    made = assembler(packets)
    return [made.assemble(ns(end_s)).reports["text"].reason for end_s in ends_s]


def test_words_that_are_still_being_recognised_are_not_reported_as_no_words() -> None:
    # The recogniser has been busy since 1.0 s: while it is, nothing comes of it.
    assert why_no_words([*talk(9.0, 1.0), told(1.0)], 2.0, 2.6, 5.0, 9.0) == [
        "no words",  # in time: nobody would know yet
        "recognising, 2 s behind",
        "recognising, 4 s behind",
        "recognising, 8 s behind",  # longer than the window
    ]


def test_the_lag_is_counted_from_the_first_voice_that_waits_and_ends_with_its_words() -> None:
    made = assembler([*talk(8.0, 3.0), told(1.0)])
    assert made.assemble(ns(3.2)).reports["text"].reason == "no words"
    assert made.assemble(ns(7.0)).reports["text"].reason == "recognising, 4 s behind"
    made.add(told(7.0, behind_s=2.0))  # a hypothesis covers what was said until 5.0
    assert made.assemble(ns(7.2)).reports["text"].reason == "recognising, 2 s behind"
    made.add(told(7.9))
    assert made.assemble(ns(8.0)).reports["text"].reason == "no words"  # a cough


def test_recognition_without_any_packet_is_behind_too() -> None:
    assert why_no_words(talk(5.0, 2.0), 2.2, 5.0) == ["no words", "recognising, 3 s behind"]
    assert why_no_words([sound(i / 10) for i in range(1, 51)], 5.0) == ["no words"]  # nobody spoke


def test_without_an_audio_stage_the_text_packet_tells_how_far_it_is_behind() -> None:
    assert why_no_words([told(2.0, behind_s=0.2)], 2.2, 6.0) == ["no words", "recognising, 4 s behind"]


def test_the_reason_counts_the_speech_that_was_left_out() -> None:
    quiet = told(3.0, behind=True)
    assert why_no_words([*talk(3.0), quiet], 3.0) == ["recognition is behind"]
    assert why_no_words([*talk(3.0), replace(quiet, left_out_s=12.3)], 3.0) == [
        "recognition is behind: 12 s left out"
    ]


def test_a_text_that_has_ended_is_not_waited_for() -> None:
    made = assembler([*talk(5.0), told(1.0)])
    made.add(end_of_stream("text"))
    assert made.assemble(ns(5.0)).reports["text"].reason == "no words"


def test_frames_with_late_stamps_differ_from_frames_that_stopped() -> None:
    made = assembler()
    reasons = []
    for hop in range(1, 40):
        end_s = hop / 5
        if end_s <= 4.0:
            made.add(face(end_s - 3.0))
        reasons.append(made.assemble(ns(end_s)).reports["vision"].reason)
    assert reasons[10] == "frames come 3 s late"
    assert reasons[-1] == "no frames"
    slow = assembler([face(0.1)])  # one frame, in time
    assert [slow.assemble(ns(hop / 5)).reports["vision"].reason for hop in (1, 6, 8)] == [
        None,
        "no frames",
        "no frames",
    ]


def test_a_neutral_of_one_s_own_is_learned_per_person_and_widens_intervals_until_it_is_known() -> None:
    shapes = FusionShapes(vision_frames=300, vision_dim=58, audio_frames=40, audio_dim=73, text_dim=4)

    def seen(t_s: float, changes: int = 0) -> VisionPacket:
        features = np.zeros(58, np.float32)
        features[3] = 0.5  # browInnerUp
        t_ns = ns(t_s)
        return VisionPacket(t_ns=t_ns, progress_ns=t_ns, faces=1, features=features, changes=changes)

    made = WindowAssembler(
        WindowConfig(), shapes, frozenset(MODALITIES), baselines=baselines_for(COMPACT_ENCODERS, "running")
    )
    for number in range(1, 101):
        made.add(seen(0.1 * number))
    before = made.assemble(ns(1.0))
    after = made.assemble(ns(10.0))
    assert before.learned["vision"].seconds == pytest.approx(1.0)
    assert before.gone > 0.2 > after.gone == 0
    assert after.learned["vision"].ready
    assert not after.learned["audio"].ready
    brows = after.stream.vision.values[:, 3]
    assert brows[0] > 0.45 > 0.3 > brows[-1]
    made.add(seen(10.1, changes=1))  # another person
    other = made.assemble(ns(10.2))
    assert not other.learned["vision"].ready
    assert other.stream.vision.values[-1, 3] > 0.4
    plain = WindowAssembler(WindowConfig(), shapes, frozenset(MODALITIES))
    plain.add(seen(0.1))
    window = plain.assemble(ns(0.2))
    assert window.learned == {}
    assert window.stream.vision.values[0, 3] == 0.5
