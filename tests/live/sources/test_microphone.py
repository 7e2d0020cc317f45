"""A microphone: times, losses, absence and return; by fakes, and for real through PulseAudio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emi_live.clock import NS_PER_MS, NS_PER_S, MonotonicClock
from emi_live.config import MicrophoneConfig
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.rings import AudioBlock
from emi_live.sources import DeviceLostError
from emi_live.sources.microphone import (
    QUEUE_BLOCKS,
    AdcTimeline,
    MicrophoneSource,
    PortAudioInputs,
    find_microphone,
)
from tests.live.sources.fakes import RecordingIntake, ScriptedDevice, Stop
from tests.support.fakes import FakeClock
from tests.support.pulse import PulseServer
from tests.support.waiting import until

BLOCK = 512


def block(index: int, *, overflowed: bool = False, dropped: int = 0) -> AudioBlock:
    samples = np.zeros((BLOCK, 1), np.float32)
    return AudioBlock(samples, index * 32 * NS_PER_MS, gap=overflowed, lost=dropped * BLOCK)


class FakePortAudio:
    """What is used of the module `sounddevice`, with one stereo-only input at 16 kHz."""

    class PortAudioError(Exception):
        """As sounddevice's."""

    def __init__(
        self, *, mono: bool = True, inputs: int = 1, names: Sequence[str] = (), outputs: Iterable[str] = ()
    ) -> None:
        self._mono = mono
        self._names = names or [f"mic {k}" for k in range(inputs)]
        self._outputs = outputs
        self.restarts = 0
        self.active = True
        self.options: dict[str, Any] = {}
        self.callback: Callable[..., None] = lambda *_: None

    def query_devices(self, device: object = None, kind: str | None = None) -> Any:
        listed = [
            {
                "index": k,
                "name": name,
                "max_input_channels": 0 if name in self._outputs else 2,
                "default_samplerate": 16_000.0,
            }
            for k, name in enumerate(self._names)
        ]
        if kind is None:
            return listed
        usable = [info for info in listed if info["max_input_channels"]]
        if not usable:
            raise self.PortAudioError("Error querying device -1")
        return next(info for info in usable if device in (None, info["index"]))

    def check_input_settings(self, device: object, channels: int, **_: object) -> None:
        if channels == 1 and not self._mono:
            raise self.PortAudioError("Invalid number of channels")

    def InputStream(self, **options: Any) -> FakePortAudio:  # noqa: N802 # sounddevice's own name
        self.options, self.callback = options, options["callback"]
        return self

    def start(self) -> None:
        """As sounddevice's streams."""

    def abort(self, ignore_errors: bool) -> None:
        self.active = False

    def close(self, ignore_errors: bool) -> None:
        self.active = False

    def _terminate(self) -> None:
        self.restarts += 1

    def _initialize(self) -> None:
        self.active = True

    def deliver(self, *, delay_s: float = 0.04, adc: float = 100.0, overflow: bool = False) -> None:
        """Call back with one block that the converter began `delay_s` ago."""
        buffer = np.ones((BLOCK, self.options["channels"]), np.float32)
        times = SimpleNamespace(inputBufferAdcTime=adc, currentTime=adc + delay_s)
        self.callback(buffer, BLOCK, times, SimpleNamespace(input_overflow=overflow))
        buffer[:] = np.nan  # PortAudio's buffer is not ours after the callback


def inputs(fake: FakePortAudio, clock: FakeClock, device: int | str | None = None) -> PortAudioInputs:
    return PortAudioInputs(device, MicrophoneConfig(), clock, load=lambda: fake)


def listen(*scripts: list[AudioBlock | float | DeviceLostError]) -> tuple[RecordingIntake, Health, int]:
    clock, health = FakeClock(), Health()
    stop = Stop(clock)
    device = ScriptedDevice[AudioBlock](*scripts, clock=clock, stop=stop)
    intake = RecordingIntake(health)
    MicrophoneSource(None, MicrophoneConfig(), clock, health, connect=device).run(intake, stop)
    assert intake.events[-1] == "end_audio"
    assert "end_video" not in intake.events
    return intake, health, len(device.feeds)


def test_blocks_are_pushed_with_their_times() -> None:
    intake, health, _ = listen([block(k) for k in range(6)])
    assert [t_ns for _, t_ns, _ in intake.sound] == [k * 32 * NS_PER_MS for k in range(1, 6)]
    assert health.status("microphone").state == "ended"


def test_losses_are_counted() -> None:
    _, health, _ = listen(
        [block(0), block(1, overflowed=True), block(2, dropped=3), block(3, overflowed=True, dropped=1)]
    )
    assert health.snapshot().counters == {"microphone.overflows": 2, "microphone.dropped": 4}


def test_no_audio_arriving_is_not_silence() -> None:
    silent = [block(k) for k in range(100)]  # zeros for 3.2 s
    _, health, feeds = listen([*silent, 0.5, block(101)])
    assert feeds == 1
    intake, health, feeds = listen([block(0), block(1), 60.0], [block(90)])
    assert feeds == 2
    assert health.snapshot().counters["microphone.lost"] == 1
    assert len(intake.sound) == 2


def test_the_callback_copies_and_stamps_with_the_time_of_the_converter() -> None:
    fake, clock = FakePortAudio(), FakeClock(10 * NS_PER_S)
    feed = inputs(fake, clock)()
    assert fake.options["blocksize"] == 512
    fake.deliver(delay_s=0.040)
    got = feed.next(0.0)
    assert got is not None
    assert got.t_ns == 10 * NS_PER_S - 40 * NS_PER_MS
    assert got.samples.shape == (BLOCK, 1)
    assert (got.samples == 1).all()
    assert feed.next(0.0) is None


@pytest.mark.parametrize(("adc", "delay_s"), [(0.0, 0.040), (100.0, -1.0), (100.0, 60.0)])
def test_a_driver_without_a_clock_counts_back_from_the_callback(adc: float, delay_s: float) -> None:
    fake, clock = FakePortAudio(), FakeClock(10 * NS_PER_S)
    feed = inputs(fake, clock)()
    fake.deliver(adc=adc, delay_s=delay_s)
    got = feed.next(0.0)
    assert got is not None
    assert got.t_ns == 10 * NS_PER_S - 32 * NS_PER_MS


def test_a_reader_that_is_late_loses_the_oldest_and_knows_how_many() -> None:
    fake, clock = FakePortAudio(), FakeClock(NS_PER_S)
    feed = inputs(fake, clock)()
    for _ in range(QUEUE_BLOCKS + 5):
        clock.advance(32 * NS_PER_MS)
        fake.deliver(overflow=False)
    first = feed.next(0.0)
    assert first is not None
    assert first.lost == 5 * BLOCK
    assert first.t_ns == NS_PER_S + 6 * 32 * NS_PER_MS - 40 * NS_PER_MS
    rest = [feed.next(0.0) for _ in range(QUEUE_BLOCKS - 1)]
    assert all(item is not None and item.lost == 0 for item in rest)


def test_a_stream_that_stops_is_lost_once_it_is_drained() -> None:
    fake, clock = FakePortAudio(), FakeClock(NS_PER_S)
    feed = inputs(fake, clock)()
    fake.deliver()
    fake.active = False
    assert feed.next(0.0) is not None
    with pytest.raises(DeviceLostError, match="stopped"):
        feed.next(0.0)


def test_a_stereo_only_microphone_is_opened_as_such() -> None:
    fake = FakePortAudio(mono=False)
    inputs(fake, FakeClock())()
    assert fake.options["channels"] == 2


def test_portaudio_is_started_afresh_only_to_reopen() -> None:
    fake = FakePortAudio()
    connect = inputs(fake, FakeClock())
    connect().close()
    assert fake.restarts == 0
    connect().close()
    assert fake.restarts == 1


def test_an_unknown_microphone_is_answered_with_those_there_are() -> None:
    with pytest.raises(DeviceLostError, match=r"'x'.*'mic 1'"):
        inputs(FakePortAudio(inputs=2), FakeClock(), "x")()


@pytest.mark.parametrize("wanted", [2, "USB Mic", "usb mic", "MIC usb", "Küche", "KÜCHE"])
def test_a_microphone_is_found_by_number_name_case_and_words(wanted: int | str) -> None:
    names = ["HDMI", "Built-in Mic", "USB Mic"] if "ü" not in str(wanted).lower() else ["x", "y", "Küche"]
    assert find_microphone(FakePortAudio(names=names, outputs={"HDMI"}), wanted) == 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("mic", "any of 2.*1 'Built-in Mic', 2 'USB Mic'"),
        ("hdmi", "output.*1 'Built-in Mic', 2 'USB Mic'"),
        (0, "output.*1 'Built-in Mic'"),
        (7, "7 is not here"),
    ],
)
def test_what_is_no_microphone_is_answered_with_those_there_are(wanted: int | str, message: str) -> None:
    fake = FakePortAudio(names=["HDMI", "Built-in Mic", "USB Mic"], outputs={"HDMI"})
    with pytest.raises(DeviceLostError, match=message):
        inputs(fake, FakeClock(), wanted)()


def test_one_name_in_full_wins_over_those_that_contain_it() -> None:
    assert find_microphone(FakePortAudio(names=["default mic", "Default"]), "default") == 1


def test_no_microphone_at_all_says_so() -> None:
    with pytest.raises(DeviceLostError, match="no microphone"):
        inputs(FakePortAudio(inputs=0), FakeClock())()


def test_the_timeline_smooths_jitter_follows_drift_and_believes_jumps() -> None:
    timeline = AdcTimeline(16_000)
    rng, period = np.random.default_rng(0), 32 * NS_PER_MS
    stamps = []
    for k in range(1_000):
        drifted = round(k * period * 1.0005)
        stamps.append(timeline.stamp(drifted + int(rng.integers(-8, 8)) * NS_PER_MS, BLOCK))
    steps = np.diff(stamps[100:]) - period
    assert np.abs(steps).max() < 2 * NS_PER_MS
    assert abs(stamps[-1] - 999 * period * 1.0005) < 8 * NS_PER_MS
    jumped = stamps[-1] + 5 * period
    assert timeline.stamp(jumped, BLOCK) == jumped
    told = jumped + period + 20 * NS_PER_MS
    assert timeline.stamp(told, BLOCK, broken=True) == told


@pytest.fixture
def running(pulse: PulseServer) -> Any:
    """A microphone on the sound server, running in a thread."""
    stop, health = threading.Event(), Health()
    intake = RecordingIntake(health)
    source = MicrophoneSource("pulse", MicrophoneConfig(reopen_last_s=0.5), MonotonicClock(), health)
    thread = threading.Thread(target=source.run, args=(intake, stop))
    thread.start()
    yield SimpleNamespace(intake=intake, health=health, server=pulse)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert intake.events[-1] == "end_audio"


@pytest.mark.slow
def test_speech_played_into_a_real_sound_server_is_heard(running: Any, assets: Path) -> None:
    until(lambda: len(running.intake.sound) > 20)
    heard = len(running.intake.sound)
    running.server.play(assets / "speech/english_one_two_three.wav")
    sound = running.intake.sound[heard:]
    samples = np.concatenate([pcm[:, 0] for pcm, _, _ in sound])
    rate_hz = sound[0][2]
    assert samples.size / rate_hz > 2.0
    assert np.abs(samples).max() > 0.1
    # Their times advance like the samples do.
    steps = [b[1] - a[1] - a[0].shape[0] * NS_PER_S / rate_hz for a, b in pairwise(sound)]
    assert np.median(np.abs(steps)) < 5 * NS_PER_MS
    assert running.health.status("microphone").state == "running"


@pytest.mark.slow
def test_a_sound_server_that_dies_is_missed_and_found_again(running: Any) -> None:
    until(lambda: len(running.intake.sound) > 20)
    running.server.stop()
    until(lambda: running.health.status("microphone").state == "failed")
    running.server.start()
    before = len(running.intake.sound)
    until(lambda: running.health.status("microphone").state == "running")
    until(lambda: len(running.intake.sound) > before + 10)
    assert running.health.snapshot().counters["microphone.lost"] >= 1


def test_an_absent_microphone_is_no_source(pulse: PulseServer) -> None:
    with pytest.raises(SourceError, match=r"nosuch.*pulse") as caught:
        MicrophoneSource("nosuch", MicrophoneConfig(), MonotonicClock(), Health())
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
