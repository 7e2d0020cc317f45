from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from emi_live.cli.session import Summary
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.config import BusConfig
from emi_live.health import Health
from emi_live.sinks import Sink
from emi_live.sinks.jsonl import JsonLinesSink
from emi_live.sinks.publish import PublishSink
from emi_live.sinks.terminal import TerminalSink
from tests.live.bus.packets import estimate
from tests.support.fakes import FakeClock

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


def terminal(width: int = 80, height: int = 24, *, tty: bool = True) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        height=height,
        force_terminal=tty,
        legacy_windows=False,
        _environ={"TERM": "xterm"},
    )
    return console, output


def drawings(output: io.StringIO) -> int:
    return output.getvalue().count("emi-live")


def test_it_takes_the_screen_and_gives_it_back() -> None:
    console, output = terminal()
    sink = TerminalSink(Health(), source="camera 0", console=console, clock=FakeClock())
    assert output.getvalue() == ""
    sink.open()
    assert ENTER in output.getvalue()
    assert "waiting for the first estimate" in output.getvalue()
    sink.close()
    sink.close()
    assert output.getvalue().count(LEAVE) == 1


def test_it_draws_at_most_fifteen_times_a_second_and_catches_up_when_idle() -> None:
    clock = FakeClock()
    console, output = terminal()
    sink = TerminalSink(Health(), console=console, clock=clock)
    sink.open()
    for hop in range(100):  # exact mode: a hundred estimates in half a second
        clock.advance(5 * NS_PER_MS)
        sink.write(estimate(hop / 5, joy=hop / 100))
    assert 6 <= drawings(output) <= 9
    clock.advance(NS_PER_S // 10)
    sink.idle()
    assert "0.99" in output.getvalue()
    before = drawings(output)
    sink.idle()
    assert drawings(output) == before
    clock.advance(3 * NS_PER_S)
    sink.idle()
    assert "no estimate for 3 s" in output.getvalue()
    sink.close()


def test_it_follows_the_size_of_the_terminal() -> None:
    clock = FakeClock()
    console, output = terminal(120, 40)
    sink = TerminalSink(Health(), console=console, clock=clock)
    sink.open()
    console.size = (
        console.size._replace(width=50, height=14) if hasattr(console.size, "_replace") else console.size
    )
    output.truncate(0)
    clock.advance(NS_PER_S)
    sink.idle()
    assert "╭" not in output.getvalue()
    sink.close()


def test_without_a_terminal_it_writes_a_plain_line_a_second() -> None:
    clock = FakeClock()
    console, output = terminal(tty=False)
    sink = TerminalSink(Health(), console=console, clock=clock)
    sink.open()
    for hop in range(1, 16):
        clock.advance(NS_PER_S // 5)
        sink.write(estimate(hop / 5))
        sink.idle()
    sink.close()
    lines = output.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b" not in output.getvalue()
    time, values, states, latency, words = lines[0].split(" | ")
    assert time == "    0.2 s"
    assert values.split()[:4] == ["admiration", "0.12", "amusement", "0.03"]
    assert values.endswith("empathic_pain 0.00 excitement 0.20 joy 0.31")
    assert states == "vision live audio missing text live"
    assert (latency, words) == ("57 ms", "what a day it was")


def test_a_terminal_without_unicode_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(file=stream, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})
    clock = FakeClock()
    sink = TerminalSink(Health(), source="caméra", console=console, clock=clock)
    sink.open()
    clock.advance(NS_PER_S)
    sink.write(estimate())
    sink.close()
    stream.flush()
    assert b"cam?ra" in raw.getvalue()
    assert b"####" in raw.getvalue()
    assert b" - on this machine" in raw.getvalue()


def test_no_color_is_honoured() -> None:
    output = io.StringIO()
    environment = {"TERM": "xterm-256color", "NO_COLOR": "1"}
    console = Console(file=output, force_terminal=True, width=80, height=24, _environ=environment)
    clock = FakeClock()
    sink = TerminalSink(Health(), console=console, clock=clock)
    sink.open()
    clock.advance(NS_PER_S)
    sink.write(estimate())
    sink.close()
    assert "[38;" not in output.getvalue()
    assert "missing" in output.getvalue()


@pytest.mark.parametrize("kind", ["terminal", "json", "publish"])
def test_every_sink_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    sink: Sink
    match kind:
        case "terminal":
            sink = TerminalSink(Health(), console=terminal()[0])
        case "json":
            sink = JsonLinesSink(tmp_path / "out.jsonl")
        case _:
            sink = PublishSink("tcp://127.0.0.1:*", BusConfig.model_validate({}))
    assert sink.name == kind
    sink.open()
    sink.open()
    assert not sink.finished
    sink.idle()
    sink.write(estimate())
    sink.idle()
    sink.close()
    sink.close()
    sink.write(estimate())
    sink.idle()


def test_the_summary_has_rate_latency_losses_and_peaks() -> None:
    clock = FakeClock()
    summary = Summary(clock)
    for hop in range(1, 101):
        clock.advance(NS_PER_S // 10)
        one = estimate(hop / 5, joy=hop / 200)
        latency = msgspec.structs.replace(one.latency, capture_to_estimate=float(hop))
        summary.add(msgspec.structs.replace(one, latency=latency))
    console, output = terminal(tty=False)
    health = Health()
    health.count("camera.overwritten", 3)
    console.print(summary.render(health.snapshot()))
    text = output.getvalue()
    for wanted in (
        "100 estimates, 10.0 per second, 20.0 s of media in 9.9 s",
        "capture to estimate p50 50.0, p95 95.0 ms",
        "nothing lost",
        "as it should be: 3 frames skipped (newer ones came first)",
    ):
        assert wanted in text
    joy = next(line.split() for line in text.splitlines() if line.startswith("joy"))
    assert joy == ["joy", "0.25", "0.50", "20.0", "s"]


def test_the_summary_has_the_share_of_words_taken_back() -> None:
    health = Health()
    for name, count in {"speech.words": 40, "speech.erased": 10, "speech.cut_word": 3}.items():
        health.count(name, count)
    summary = Summary(FakeClock())
    summary.add(estimate(0.2))
    console, output = terminal(tty=False)
    console.print(summary.render(health.snapshot()))
    text = output.getvalue()
    assert "40 words; 0.25 shown and taken back for each" in text
    assert "nothing lost" in text


def test_the_summary_of_nothing() -> None:
    console, output = terminal(tty=False)
    console.print(Summary(FakeClock()).render(Health().snapshot()))
    assert output.getvalue() == "no estimates\n"
