"""Wrong time stamps are corrected, and right ones are left alone: pure logic, on stamps alone."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from emi_live.clock import NS_PER_S
from emi_live.sources.stamps import Correction, MediaTimeline, Stamp, StreamName

FRAME_NS = NS_PER_S // 10
BLOCK_NS = NS_PER_S // 20
HOUR_NS = 3_600 * NS_PER_S
MAX_GAP_NS = 120 * NS_PER_S

Pauses = Sequence[tuple[float, float]]  # at, for: seconds


def stream(name: StreamName, seconds: float, pauses: Pauses = (), reorder: int = 0) -> list[Stamp]:
    """A stream of right stamps; `reorder` frames are decoded before they are shown."""
    step_ns = FRAME_NS if name == "video" else BLOCK_NS
    stamps = []
    for number in range(round(seconds * NS_PER_S / step_ns)):
        t_ns = number * step_ns
        if not any(at <= t_ns / NS_PER_S < at + length for at, length in pauses):
            stamps.append(Stamp(name, t_ns + reorder * step_ns, t_ns, step_ns))
    return stamps


def in_file_order(*streams: list[Stamp]) -> list[Stamp]:
    return list(heapq.merge(*streams, key=lambda stamp: stamp.dts_ns or 0))


def film(
    seconds: float, video_pauses: Pauses = (), audio_pauses: Pauses = (), reorder: int = 2
) -> list[Stamp]:
    return in_file_order(
        stream("video", seconds, video_pauses, reorder), stream("audio", seconds, audio_pauses)
    )


def correct(stamps: Sequence[Stamp]) -> tuple[list[Stamp], list[tuple[Correction, StreamName]]]:
    corrections: list[tuple[Correction, StreamName]] = []
    timeline: MediaTimeline[int] = MediaTimeline(
        MAX_GAP_NS, lambda what, name, t_ns: corrections.append((what, name))
    )
    return [stamp for stamp, _ in timeline.correct((stamp, 0) for stamp in stamps)], corrections


def moved(stamps: Sequence[Stamp], by_ns: int) -> list[Stamp]:
    return [stamp.moved(by_ns) for stamp in stamps]


def presented(stamps: Sequence[Stamp], name: StreamName) -> list[int]:
    return [stamp.pts_ns or 0 for stamp in stamps if stamp.stream == name]


pauses = st.lists(st.tuples(st.floats(0, 250), st.floats(0, 250)), max_size=3)


@settings(deadline=None, max_examples=40)
@given(pauses=pauses, which=st.sampled_from(["video", "audio"]), reorder=st.integers(0, 3))
def test_a_pause_of_one_stream_stays_however_long_it_is(pauses: Pauses, which: str, reorder: int) -> None:
    stamps = film(300, pauses if which == "video" else (), pauses if which == "audio" else (), reorder)
    assert correct(stamps) == (stamps, [])


@settings(deadline=None, max_examples=40)
@given(at=st.floats(0.5, 20), length=st.floats(0, 115))
def test_a_pause_of_both_streams_stays_up_to_the_limit(at: float, length: float) -> None:
    stamps = film(150, [(at, length)], [(at, length)])
    assert correct(stamps) == (stamps, [])


@settings(deadline=None, max_examples=40)
@given(
    cut_s=st.floats(1, 10),
    jump_ns=st.one_of(
        st.integers(MAX_GAP_NS + 12 * NS_PER_S, 30 * HOUR_NS), st.integers(-30 * HOUR_NS, -3 * NS_PER_S)
    ),
    reorder=st.integers(0, 3),
)
def test_a_jump_of_both_streams_leaves_no_hole_and_keeps_them_together(
    cut_s: float, jump_ns: int, reorder: int
) -> None:
    honest = film(12, reorder=reorder)
    cut = next(index for index, stamp in enumerate(honest) if (stamp.dts_ns or 0) >= cut_s * NS_PER_S)
    corrected, corrections = correct(honest[:cut] + moved(honest[cut:], jump_ns))
    assert [what for what, _ in corrections] == ["discontinuities"]
    shifts = {
        (after.pts_ns or 0) - (before.pts_ns or 0) for before, after in zip(honest, corrected, strict=True)
    }
    assert len(shifts) <= 2  # nothing before the cut, one and the same for both streams after it
    assert max(map(abs, shifts)) <= 2 * FRAME_NS


@settings(deadline=None, max_examples=40)
@given(parts=st.lists(st.floats(1, 6), min_size=2, max_size=4), audio_ends_s=st.floats(-0.9, 0.9))
def test_files_joined_end_to_end_play_one_after_the_other(parts: list[float], audio_ends_s: float) -> None:
    joined = [
        stamp
        for length in parts
        for stamp in in_file_order(stream("video", length), stream("audio", max(0.1, length + audio_ends_s)))
    ]
    corrected, corrections = correct(joined)
    assert len(corrections) == len(parts) - 1
    for name in ("video", "audio"):
        times = presented(corrected, name)
        steps = [after - before for before, after in pairwise(times)]
        assert min(steps) > 0
        assert max(steps) <= 2 * NS_PER_S  # the difference of the streams' ends, once
    assert presented(corrected, "video")[-1] <= (sum(parts) + len(parts)) * NS_PER_S


@settings(deadline=None, max_examples=40)
@given(
    index=st.integers(1, 60),
    name=st.sampled_from(["video", "audio"]),
    by_ns=st.one_of(
        st.integers(12 * NS_PER_S, 100_000 * NS_PER_S), st.integers(-100_000 * NS_PER_S, -12 * NS_PER_S)
    ),
    decode_time_is_wrong_too=st.booleans(),
)
def test_one_stamp_far_off_is_refused_and_all_others_stay(
    index: int, name: StreamName, by_ns: int, decode_time_is_wrong_too: bool
) -> None:
    honest = film(8)
    place = [at for at, stamp in enumerate(honest) if stamp.stream == name][index]
    bogus = honest[place].moved(by_ns)
    if not decode_time_is_wrong_too:
        bogus = replace(bogus, dts_ns=honest[place].dts_ns)
    corrected, corrections = correct([*honest[:place], bogus, *honest[place + 1 :]])
    assert corrections == [("refused_stamps", name)]
    assert corrected == honest


def test_one_stream_may_jump_alone() -> None:
    honest = film(10)
    stamps = [
        stamp.moved(HOUR_NS) if stamp.stream == "audio" and (stamp.dts_ns or 0) >= 4 * NS_PER_S else stamp
        for stamp in honest
    ]
    corrected, corrections = correct(stamps)
    assert corrections == [("discontinuities", "audio")]
    assert corrected == honest


def test_a_wrapped_counter_is_a_jump_backwards() -> None:
    wrap_ns = 2**33 * NS_PER_S // 90_000
    honest = film(6)
    start_ns = wrap_ns - 3 * NS_PER_S
    # The origin is the container's start.
    stamps = [s if (s.dts_ns or 0) + start_ns < wrap_ns else s.moved(-wrap_ns) for s in honest]
    corrected, corrections = correct(stamps)
    assert [what for what, _ in corrections] == ["discontinuities"]
    for name in ("video", "audio"):
        assert presented(corrected, name) == sorted(presented(corrected, name))
        assert abs(presented(corrected, name)[-1] - presented(honest, name)[-1]) <= FRAME_NS


def test_the_one_stream_of_a_file_has_a_limit() -> None:
    slides = [Stamp("video", t * NS_PER_S, t * NS_PER_S) for t in (0, 100, 200, 300)]
    assert correct(slides) == (slides, [])
    apart = [Stamp("video", t * NS_PER_S, t * NS_PER_S) for t in (0, 1_000, 2_000)]
    corrected, corrections = correct(apart)
    assert len(corrections) == 2
    assert presented(corrected, "video")[-1] <= 2 * NS_PER_S


def test_frames_a_hundred_seconds_apart_may_be_out_of_order() -> None:
    shown, decoded = [0, 300, 100, 200, 400], [-200, -100, 0, 100, 200]
    slides = [
        Stamp("video", pts * NS_PER_S, dts * NS_PER_S, 100 * NS_PER_S)
        for pts, dts in zip(shown, decoded, strict=True)
    ]
    assert correct(slides) == (slides, [])


def test_durations_that_lie_do_no_harm() -> None:
    honest = film(5)
    stamps = [replace(stamp, duration_ns=NS_PER_S) for stamp in honest]
    assert correct(stamps) == (stamps, [])


def test_packets_without_stamps_pass() -> None:
    stamps = [Stamp("video", None, None)] * 5 + [Stamp("video", 0, None, FRAME_NS)]
    assert correct(stamps) == (stamps, [])
