from __future__ import annotations

import dataclasses
import io
import xml.etree.ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from emi_live.clock import NS_PER_S
from emi_live.health import Health, HealthSnapshot
from emi_live.messages import Estimate, LearnedNeutral, OwnNeutral, Range
from emi_live.sinks.view import render, to_svg
from emi_live.sinks.viewstate import (
    ASCII_GLYPHS,
    LENGTH_FACT,
    UNICODE_GLYPHS,
    Glyphs,
    Loss,
    Progress,
    ProgressLine,
    ProgressMeter,
    StateKeeper,
    ViewState,
    glyphs_for,
    losses,
)
from emi_models import EMOTIONS
from tests.live.bus.packets import estimate, estimates
from tests.support.fakes import FakeClock

NOTICE = "intensities say what shows, not what is felt · on this machine, nothing stored"


def shown(
    state: ViewState,
    width: int = 80,
    height: int = 24,
    glyphs: Glyphs = UNICODE_GLYPHS,
    *,
    colour: bool = False,
) -> str:
    console = Console(
        width=width,
        height=height,
        file=io.StringIO(),
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        legacy_windows=False,
        no_color=False,
    )
    with console.capture() as capture:
        console.print(render(state, width, height, glyphs))
    return capture.get()


def with_words(committed: str, partial: str = "") -> Estimate:
    one = estimate()
    text = msgspec.structs.replace(one.modalities["text"], committed=committed, partial=partial)
    return msgspec.structs.replace(one, modalities={**one.modalities, "text": text})


def busy(one: Estimate | None = None) -> ViewState:
    clock = FakeClock()
    keeper = StateKeeper(clock, "camera 0", NOTICE)
    for hop in range(100):
        clock.advance(NS_PER_S // 5)
        keeper.add(estimate(hop / 5, joy=hop / 100), frames=6 * hop)
    clock.advance(NS_PER_S // 5)
    keeper.add(one or estimate(20.0), 600)
    counters = {"camera.overwritten": 3, "bus.vision.dropped": 12, "video.frames": 600, "window.discarded": 0}
    return keeper.state(HealthSnapshot(counters, {}))


def agreeing(state: ViewState) -> ViewState:
    """The state with names and bins as its estimate has them, as the keeper gives it."""
    if state.estimate is None:
        return state
    names = state.estimate.names
    bins = tuple(None if bin_ is None else (bin_ * len(names))[: len(names)] for bin_ in state.history)
    return dataclasses.replace(state, names=names, history=bins)


states = st.builds(
    ViewState,
    source=st.text(max_size=60),
    notice=st.just(NOTICE),
    estimate=st.none() | estimates,
    history=st.lists(st.none() | st.tuples(*[st.floats(0, 1)] * 6), max_size=120).map(tuple),
    estimate_rate_hz=st.none() | st.floats(0, 1e4),
    frame_rate_hz=st.none() | st.floats(0, 1e4),
    speed=st.none() | st.floats(0, 1e4),
    silent_s=st.floats(0, 1e5),
    losses=st.lists(
        st.builds(Loss, st.just("bus.x"), st.integers(1, 10**9), st.text(max_size=90), st.booleans()),
        max_size=9,
    ).map(tuple),
    progress=st.none()
    | st.builds(Progress, st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.none() | st.floats(0, 1e4)),
    keys=st.none() | st.booleans(),
    paused=st.booleans(),
    helping=st.booleans(),
    markers=st.integers(0, 10**6),
).map(agreeing)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(states, st.integers(50, 200), st.integers(14, 70), st.sampled_from([UNICODE_GLYPHS, ASCII_GLYPHS]))
def test_it_fits_any_terminal_whatever_it_shows(
    state: ViewState, width: int, height: int, glyphs: Glyphs
) -> None:
    text = shown(state, width, height, glyphs)
    lines = text.splitlines()
    assert len(lines) == height
    assert max(cell_len(line) for line in lines) <= width
    assert "\x1b" not in text
    if glyphs is ASCII_GLYPHS:
        assert text.isascii()


@given(st.integers(1, 49), st.integers(1, 13))
@settings(deadline=None)
def test_a_tiny_terminal_does_no_harm(width: int, height: int) -> None:
    assert max(cell_len(line) for line in shown(busy(), width, height).splitlines()) <= width


def test_80_by_24_shows_everything() -> None:
    text = shown(busy())
    for wanted in (
        *(name.replace("_", " ") for name in EMOTIONS),
        "camera 0",
        "00:20.0",
        "compact · onnxruntime-cpu",
        "● live",
        "○ missing",
        "41 ms",
        "2.3 s",
        "used · 246 frames",
        "no voice",
        "shown, not used by this checkpoint",
        "what a day it was",
        "5.0 estimates/s",
        "57 ms from capture",
        "30 frames/s",
        "window 0.4 fusion 3.1 ms",
        "12 messages lost on bus vision · 3 frames skipped (newer ones came first)",
        NOTICE,
        "0.31",
    ):
        assert wanted in text
    assert "discarded" not in text


@pytest.mark.parametrize(("width", "height"), [(50, 14), (80, 24), (120, 40), (200, 60)])
def test_states_are_in_words_at_every_size(width: int, height: int) -> None:
    one = estimate()
    reports = {
        **one.modalities,
        "vision": msgspec.structs.replace(
            one.modalities["vision"], state="failed", used=False, reason="camera lost"
        ),
        "audio": msgspec.structs.replace(
            one.modalities["audio"], state="unavailable", age_ms=None, reason=None
        ),
    }
    text = shown(busy(msgspec.structs.replace(one, modalities=reports)), width, height)
    for wanted in ("✖ failed", "camera lost", "◌ unavailable", "● live"):
        assert wanted in text


def test_words_are_their_tail_when_long_and_the_partial_ones_are_set_apart() -> None:
    words = " ".join(f"word{index}" for index in range(300))
    text = shown(busy(with_words(words, "perhaps")))
    assert "word299 perhaps" in text
    assert "word0 " not in text
    assert "… word" in text
    styled = shown(busy(with_words("sure", "perhaps")), colour=True)
    assert "\x1b[1msure" in styled
    assert "\x1b[2;3mperhaps" in styled or "\x1b[2;3m perhaps" in styled


def test_wide_characters_and_words_longer_than_the_line_are_wrapped() -> None:
    for words in ("日本語" * 100, "x" * 500):
        lines = shown(busy(with_words(words)), 60, 24).splitlines()
        assert len(lines) == 24
        assert max(cell_len(line) for line in lines) <= 60


def test_text_from_elsewhere_cannot_command_the_terminal() -> None:
    one = msgspec.structs.replace(
        with_words("\x1b[2J\x1b]0;owned\x07 hi", "\r\n\u202eevil"), engine="\x1b[31m", bundle="[red]b[/]"
    )
    text = shown(dataclasses.replace(busy(one), source="\x9b31m[bold]cam"))
    assert not set(text) & set("\x1b\x07\r\x9b\u202e")
    assert "[bold]cam" in text
    assert "[red]b[/]" in text


def test_a_stall_and_the_start_are_shown() -> None:
    assert "no estimate for 7 s" in shown(dataclasses.replace(busy(), silent_s=7.2))
    assert "waiting for the first estimate" in shown(ViewState())
    assert "nothing lost" in shown(ViewState())


def test_without_capture_latency_the_speed_is_shown() -> None:
    one = msgspec.structs.replace(
        estimate(20.0), latency=msgspec.structs.replace(estimate().latency, capture_to_estimate=None)
    )
    assert "1.0\N{MULTIPLICATION SIGN} real time" in shown(busy(one))


def test_meters_and_histories_are_exact() -> None:
    assert UNICODE_GLYPHS.meter(0.5, 4) == ("██", "╌╌")
    assert UNICODE_GLYPHS.meter(1.0, 3) == ("███", "")
    assert UNICODE_GLYPHS.meter(0.0, 3) == ("", "╌╌╌")
    assert UNICODE_GLYPHS.meter(1 / 16, 4) == ("▎", "╌╌╌")
    assert ASCII_GLYPHS.meter(0.5, 4) == ("##", "..")
    assert UNICODE_GLYPHS.history([None, 0.0, 0.5, 1.0]) == [" ▁▄█"]
    assert UNICODE_GLYPHS.history([0.0, 0.5, 1.0], 2) == ["  █", "▁██"]
    assert UNICODE_GLYPHS.history([0.25, 0.75], 2) == [" ▄", "▄█"]


def test_the_glyphs_follow_the_encoding() -> None:
    assert glyphs_for("utf-8") is UNICODE_GLYPHS
    assert glyphs_for("UTF8") is UNICODE_GLYPHS
    assert glyphs_for("ascii") is ASCII_GLYPHS
    assert glyphs_for("iso8859-1") is ASCII_GLYPHS


def test_the_history_is_the_mean_of_each_half_second_and_keeps_gaps() -> None:
    clock = FakeClock()
    keeper = StateKeeper(clock)
    for t_s, joy in ((0.1, 0.2), (0.3, 0.4), (0.6, 1.0), (2.1, 0.5)):
        keeper.add(estimate(t_s, joy), 0)
    history = keeper.state(Health().snapshot()).history_of(5, 6)
    assert history == [None, pytest.approx(0.3), 1.0, None, None, 0.5]
    keeper.add(estimate(0.1, 0.9), 0)  # a new run
    assert keeper.state(Health().snapshot()).history_of(5, 2) == [None, 0.9]


def test_the_picture_is_whole_and_refers_to_nothing_on_the_network() -> None:
    svg = to_svg(busy(), 100, 30)
    root = ET.fromstring(svg)  # noqa: S314 # our own
    text = "".join(root.itertext()).replace("\xa0", " ")
    assert "empathic pain" in text
    assert "url(http" not in svg
    assert 'url("http' not in svg
    assert to_svg(busy(), 100, 30) == svg


def lost(*counted: tuple[str, int]) -> list[str]:
    health = Health()
    health.count("fusion.estimates")
    for name, count in counted:
        health.count(name, count)
    return [loss.words for loss in losses(health.snapshot())]


def test_losses_have_units_and_plain_names_and_the_largest_fault_comes_first() -> None:
    assert lost(
        ("camera.overwritten", 900),
        ("audio.lost_samples", 6_400),
        ("fusion.missed_hops", 40),
        ("video.frames", 1_000),
        ("camera.damaged", 1),
    ) == [
        "40 estimates left out (too slow)",
        "0.4 s of sound lost before the voice",
        "1 damaged frame",
        "900 frames skipped (newer ones came first)",
    ]


def test_a_counter_without_a_meaning_is_shown_too() -> None:
    assert lost(("radar.went_blind", 2)) == ["radar: 2 went blind"]
    assert lost(("radar.failures", 1), ("speech.guard_loop", 3)) == [
        "radar failed 1 time",
        "3 invented words withheld (loop)",
    ]


def test_drops_while_models_load_are_not_losses_but_a_damaged_file_is_shown() -> None:
    health = Health()
    health.count("bus.vision.dropped", 70)
    health.count("file.damaged", 2)
    health.count("fusion.estimates")
    health.count("fusion.estimates")
    assert [loss.words for loss in losses(health.snapshot())] == ["2 damaged pieces of the file"]
    health.count("bus.vision.dropped", 1)
    assert "1 message lost on bus vision" in [loss.words for loss in losses(health.snapshot())]


def through_a_file(length_s: float | None, until_s: float | None = None) -> ViewState:
    clock, health = FakeClock(), Health()
    if length_s is not None:
        health.note(LENGTH_FACT, length_s)
    keeper = StateKeeper(clock, "talk.mp4 (exact)", NOTICE, meter=ProgressMeter(clock, until_s))
    for hop in range(1, 101):  # 20 s of media in 10 s
        clock.advance(NS_PER_S // 10)
        keeper.add(estimate(hop / 5), 0)
    clock.advance(15 * NS_PER_S)
    return keeper.state(health.snapshot())


def test_exact_mode_shows_progress_and_no_alarm() -> None:
    text = shown(through_a_file(80.0))
    assert " 25 % · 00:20 of 01:20 · 00:30 to go" in text
    assert "no estimate" not in text
    assert "03:20" not in text
    assert " 50 % · 00:20 of 00:40 · 00:10 to go" in shown(through_a_file(80.0, 40.0))
    unknown = shown(through_a_file(None))
    assert " 00:20 · 2.0\N{MULTIPLICATION SIGN} real time · 15 s since the last step" in unknown
    assert "%" not in unknown


def test_the_progress_line_is_for_terminals_and_goes_away() -> None:
    def written(tty: bool) -> str:
        clock, health, output = FakeClock(), Health(), io.StringIO()
        health.note(LENGTH_FACT, 80.0)
        console = Console(file=output, width=80, force_terminal=tty, _environ={"TERM": "xterm"})
        line = ProgressLine(console, health, clock=clock)
        for hop in range(1, 101):
            clock.advance(NS_PER_S // 10)
            line.show(estimate(hop / 5))
        line.close()
        line.close()
        return output.getvalue()

    assert written(False) == ""
    text = written(True)
    assert " 25 % · 00:19 of 01:20 · 00:30 to go" in text or " 25 % · 00:20 of 01:20" in text
    assert "\n" not in text
    assert text.endswith("\r\x1b[K")
    assert text.count("\r") < 60


def test_a_device_that_is_opened_again_is_lost_not_failed() -> None:
    one = estimate()
    report = msgspec.structs.replace(
        one.modalities["vision"],
        state="failed",
        used=False,
        reason="lost at 12:00:01, trying again: the camera gave no picture",
    )
    text = shown(busy(msgspec.structs.replace(one, modalities={**one.modalities, "vision": report})))
    assert "✖ lost" in text
    assert "✖ failed" not in text
    assert "lost at 12:00:01, trying again" in text


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 60)])
def test_the_keys_are_named_at_the_bottom_and_explained(size: tuple[int, int]) -> None:
    state = dataclasses.replace(busy(), keys=True, markers=3)
    assert shown(state, *size).rstrip().endswith("q quit · space pause · m marker · ? help · Ctrl-C stops")
    assert "marker 3" in shown(state, *size)
    paused = shown(dataclasses.replace(state, paused=True, helping=True), *size)
    assert "PAUSED" in paused
    assert "space go on" in paused
    assert "pause the view; capture goes on" in paused
    assert shown(dataclasses.replace(state, keys=False), *size).rstrip().endswith(" Ctrl-C stops")
    assert "q quit" not in shown(dataclasses.replace(state, keys=False), *size)


def test_labels_of_ones_own_are_shown_with_their_ranges() -> None:
    clock = FakeClock()
    keeper = StateKeeper(clock, names=("arousal", "engagement_of_the_listener"))
    assert "arousal" in shown(keeper.state(HealthSnapshot({}, {})))
    one = msgspec.structs.replace(
        estimate(),
        names=("arousal", "valence"),
        ranges=(Range(-1.0, 1.0), Range(0.0, 100.0)),
        intensities=(-1.0, 50.0),
    )
    keeper.add(one, 0)
    state = keeper.state(HealthSnapshot({}, {}))
    assert state.history_of(1, 1) == [0.5]
    lines = shown(state).splitlines()
    arousal, valence = (next(line for line in lines if name in line) for name in one.names)
    assert "█" not in arousal.split("-1.00")[0]
    assert "█" in valence.split("50.00")[0]
    assert "joy" not in shown(state)


def test_more_values_than_lines_are_said_to_be_there() -> None:
    names = tuple(f"label_{number}" for number in range(32))
    many = msgspec.structs.replace(estimate(), names=names, intensities=(0.5,) * 32)
    state = ViewState(estimate=many, names=names)
    text = shown(state, 80, 24)
    assert len(text.splitlines()) == 24
    assert "label 0" in text
    assert "more; --json" in text


def test_the_probability_of_ambivalence_is_called_so() -> None:
    one = msgspec.structs.replace(estimate(), names=("ambivalence",), intensities=(0.73,), task="bah")
    text = shown(ViewState(estimate=one, names=one.names))
    assert "probability" in text
    assert "0.73" in text


def test_a_calibration_says_on_the_screen_for_how_long_to_rest() -> None:
    neutral = OwnNeutral("calibrate", vision=LearnedNeutral(1.8, False), audio=LearnedNeutral(5.0, True))
    one = msgspec.structs.replace(estimate(), baseline=neutral)
    text = shown(dataclasses.replace(busy(), estimate=one))
    assert "rest your face: 3 s" in text
    assert "learning neutral: 1.8 s" in text
    ready = msgspec.structs.replace(one, baseline=OwnNeutral("calibrate", vision=LearnedNeutral(5.0, True)))
    assert "rest your face" not in shown(dataclasses.replace(busy(), estimate=ready))
    assert "own neutral" not in shown(busy())
    assert one.to_json()["baseline"] == {
        "mode": "calibrate",
        "vision": {"seconds": 1.8, "ready": False},
        "audio": {"seconds": 5.0, "ready": True},
    }
    assert "baseline" not in estimate().to_json()
