"""A microphone as a source of sound, through PortAudio.

PortAudio's callback only copies; the reader computes times and losses. `AdcTimeline` smooths the jittering
capture times that a driver reports. A device that delivers no blocks is lost; silence is not a loss.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S, Clock, seconds_to_ns
from emi_live.config import MicrophoneConfig
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import GAP_NS, AudioBlock
from emi_live.sources import DeviceLoop, DeviceLostError, Feed
from emi_live.worker import Backoff

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "AdcTimeline",
    "MicrophoneDevice",
    "MicrophoneSource",
    "PortAudioFeed",
    "PortAudioInputs",
    "find_microphone",
    "list_microphones",
    "load_sounddevice",
]

# A twentieth of each deviation is corrected: with blocks of 32 ms, drift is followed in about 0.6 s.
FOLLOW: Final = 20


class AdcTimeline:
    """Stamps consecutive blocks of one stream.

    Blocks follow each other without a gap, so their times advance by their length; the reported times only
    correct that slowly. A deviation of 60 ms or more is believed at once: samples are missing.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._expected_ns: int | None = None

    def stamp(self, reported_ns: int, samples: int, *, broken: bool = False) -> int:
        """Capture time of a block's first sample; `broken` if samples before it are known to be missing."""
        t_ns = reported_ns
        if self._expected_ns is not None and not broken:
            deviation_ns = reported_ns - self._expected_ns
            if abs(deviation_ns) < GAP_NS:
                t_ns = self._expected_ns + deviation_ns // FOLLOW
        self._expected_ns = t_ns + samples * NS_PER_S // self._rate_hz
        return t_ns


QUEUE_BLOCKS: Final = 64  # 2 s of 32 ms blocks; past that the oldest is dropped
NO_MICROPHONE: Final = "no microphone here: plug one in, start PulseAudio or PipeWire, or use --mic none"
MAX_DELAY_S: Final = 5.0  # from converter to callback; a driver that reports more has no clock


class PortAudioInputs:
    """Opens one microphone, again and again.

    PortAudio lists devices once, when it starts. To find one that was plugged in again, it is restarted,
    which ends every other PortAudio stream of the process; so that is done only after a loss.
    """

    def __init__(
        self,
        device: int | str | None,
        config: MicrophoneConfig,
        clock: Clock,
        *,
        load: Callable[[], Any] | None = None,
    ) -> None:
        """Remember what to open; `device` None is the default, `load` returns the module `sounddevice`."""
        self._load = load or load_sounddevice
        self._device = device
        self._config = config
        self._clock = clock
        self._opened = False

    def __call__(self) -> PortAudioFeed:
        """The microphone, started.

        Raises:
            SourceError: PortAudio is not installed.
            DeviceLostError: no such microphone, or it cannot be opened; the message lists those there are.
        """
        portaudio = self._load()
        try:
            if self._opened:
                with suppress(portaudio.PortAudioError):  # after a failed start it is down already
                    portaudio._terminate()
                portaudio._initialize()
            self._opened = True
            device = None if self._device is None else find_microphone(portaudio, self._device)
            return PortAudioFeed(portaudio, device, self._config, self._clock)
        except (portaudio.PortAudioError, ValueError) as error:
            raise DeviceLostError(_describe(portaudio, self._device, error)) from error


class PortAudioFeed:
    """One running input stream."""

    recorded = False

    def __init__(self, portaudio: Any, device: int | None, config: MicrophoneConfig, clock: Clock) -> None:
        info = portaudio.query_devices(device, "input")
        self._rate_hz = round(info["default_samplerate"])
        self._clock = clock
        self._timeline = AdcTimeline(self._rate_hz)
        self._arrivals: deque[AudioBlock] = deque(
            maxlen=QUEUE_BLOCKS
        )  # with the times that PortAudio reports
        self._arrived = threading.Event()
        self._received = 0  # samples that the callback got
        self._taken = 0  # sample index after the last block taken
        self._stream = portaudio.InputStream(
            device=device,
            channels=_channels(portaudio, device, info, self._rate_hz),
            samplerate=self._rate_hz,
            blocksize=round(self._rate_hz * config.block_ms / 1e3),
            dtype="float32",
            latency="high",  # room for a late callback; it does not delay blocks
            callback=self._on_block,
        )
        try:
            self._stream.start()
        except portaudio.PortAudioError:
            self._stream.close(ignore_errors=True)
            raise

    def next(self, timeout_s: float) -> AudioBlock | None:
        """The oldest block not taken yet, shape (n, channels); None if none came within `timeout_s`.

        Its `gap` says that the driver lost samples before it, `lost` how many were not taken in time.

        Raises:
            DeviceLostError: the stream has stopped.
        """
        if not self._arrivals:
            self._arrived.wait(timeout_s)
            self._arrived.clear()
        try:
            arrival = self._arrivals.popleft()
        except IndexError:
            if not self._stream.active:
                raise DeviceLostError("no audio arriving: the stream has stopped") from None
            return None
        size = len(arrival.samples)
        block = replace(arrival, lost=arrival.start - self._taken)
        self._taken = arrival.start + size
        return replace(block, t_ns=self._timeline.stamp(block.t_ns, size, broken=block.gap_before))

    def close(self) -> None:
        """Stop and release the microphone."""
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)

    def _on_block(self, pcm: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        """Keep a copy; called by PortAudio in its own thread, which must not wait."""
        now_ns = self._clock.now_ns()
        delay_s = times.currentTime - times.inputBufferAdcTime
        if times.inputBufferAdcTime <= 0 or not 0 <= delay_s <= MAX_DELAY_S:
            delay_s = frames / self._rate_hz  # as if its last sample had just been captured
        self._arrivals.append(
            AudioBlock(
                pcm.copy(),
                now_ns - seconds_to_ns(delay_s),
                self._rate_hz,
                start=self._received,
                gap=bool(status.input_overflow),
            )
        )
        self._received += len(pcm)
        self._arrived.set()


def load_sounddevice() -> ModuleType:
    """The module, with PortAudio started.

    Raises:
        SourceError: PortAudio is not installed.
    """
    try:
        import sounddevice
    except OSError as error:
        raise SourceError(
            "a microphone needs PortAudio, which is not installed: `sudo apt install libportaudio2`, "
            "or use --mic none"
        ) from error
    module: ModuleType = sounddevice
    return module


@dataclass(frozen=True, slots=True)
class MicrophoneDevice:
    """One input of PortAudio; `--mic` takes the index, the name, or a part of the name."""

    index: int
    name: str
    rate_hz: int
    channels: int
    default: bool = False


def list_microphones(load: Callable[[], Any] = load_sounddevice) -> list[MicrophoneDevice]:
    """The inputs that PortAudio knows, by index; `load` gives the module `sounddevice`.

    Raises:
        SourceError: PortAudio is not installed.
    """
    portaudio = load()
    default, listed = None, []
    try:
        listed = portaudio.query_devices()
        default = portaudio.query_devices(None, "input")["index"]
    except (portaudio.PortAudioError, ValueError):  # there is no default, or nothing at all
        pass
    return [
        MicrophoneDevice(
            device["index"],
            device["name"],
            round(device["default_samplerate"]),
            device["max_input_channels"],
            device["index"] == default,
        )
        for device in listed
        if device["max_input_channels"]
    ]


def _channels(portaudio: Any, device: int | None, info: dict[str, Any], rate_hz: int) -> int:
    """One if the device can, else all it has: some drivers open a stereo microphone only as such."""
    try:
        portaudio.check_input_settings(device, channels=1, dtype="float32", samplerate=rate_hz)
    except portaudio.PortAudioError:
        return int(info["max_input_channels"])
    return 1


def find_microphone(portaudio: Any, wanted: int | str) -> int:
    """The index of the input meant by an index, a name, or words of a name, in capitals or not.

    Args:
        portaudio: the module `sounddevice`.
        wanted: what a person typed.

    Raises:
        DeviceLostError: none or several are meant, or an output; the message lists the inputs.
    """
    listed = list(portaudio.query_devices())
    here = [device for device in listed if device["max_input_channels"]]
    found = _matches(wanted, listed)
    inputs = [device for device in found if device["max_input_channels"]]
    if len(inputs) == 1:
        return int(inputs[0]["index"])
    if not here:
        raise DeviceLostError(NO_MICROPHONE)
    if inputs:
        raise DeviceLostError(
            f"microphone {wanted!r} may be any of {len(inputs)} inputs: {_shown(inputs)}; choose one by its "
            "number with --mic"
        )
    reason = f"is an output ({_shown(found)})" if found else "is not here"
    raise DeviceLostError(
        f"microphone {wanted!r} {reason}; inputs here: {_shown(here)}; choose one with --mic, or use "
        "--mic none"
    )


def _matches(wanted: int | str, listed: Sequence[Any]) -> list[Any]:
    """The devices that fit best: by the very name, else in another case, else with every word in the name."""
    if isinstance(wanted, int):
        return [device for device in listed if device["index"] == wanted]
    folded = wanted.casefold()
    rules: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: name.casefold() == folded,
        lambda name: all(word in name.casefold() for word in folded.split()),
    )
    found: list[Any] = []
    for fits in rules:
        found = [device for device in listed if fits(device["name"])]
        if any(device["max_input_channels"] for device in found):
            break
    return found


def _shown(devices: Iterable[Any]) -> str:
    return ", ".join(f"{device['index']} {device['name']!r}" for device in devices)


def _describe(portaudio: Any, device: int | str | None, error: Exception) -> str:
    inputs: list[Any] = []
    with suppress(portaudio.PortAudioError):
        inputs += (listed for listed in portaudio.query_devices() if listed["max_input_channels"])
    if not inputs:
        return NO_MICROPHONE
    wanted = "the default microphone" if device is None else f"microphone {device!r}"
    reason = str(error).splitlines()[0]
    return f"{wanted} cannot be opened ({reason}); inputs here: {_shown(inputs)}; choose one with --mic"


# Times `silent_device_s`: sound servers take up to two seconds to send the first block.
START_PATIENCE: Final = 4


class MicrophoneSource:
    """One microphone, by name, part of a name, or index; None is the system's choice.

    Blocks are stamped with the time of the converter, mapped to the engine's clock. When no block comes for
    `silent_device_s` the microphone is reported as `failed` ("no audio arriving") and opened again for as
    long as it takes. Losses in the driver are counted as `microphone.overflows`, blocks not taken in time as
    `microphone.dropped`.
    """

    announcements: Sequence[str] = ()

    def __init__(
        self,
        device: int | str | None,
        config: MicrophoneConfig,
        clock: Clock,
        health: Health,
        *,
        connect: Callable[[], Feed[AudioBlock]] | None = None,
    ) -> None:
        """Open the microphone and wait for its first block.

        Args:
            device: index, name or part of a name; None for the system's choice.
            config: how it is opened and watched.
            clock: the clock of capture times.
            health: gets the part `microphone` and the counters `microphone.*`.
            connect: opens the device; the default uses PortAudio.

        Raises:
            SourceError: PortAudio is missing, there is no such microphone, or it delivers nothing.
        """
        self._health = health
        self._loop = DeviceLoop[AudioBlock](
            self.name,
            connect or PortAudioInputs(_address(device), config, clock),
            clock,
            health,
            nothing="no audio arriving",
            first_s=config.silent_device_s * START_PATIENCE,
            silent_s=config.silent_device_s,
            backoff=Backoff(config.reopen_first_s, config.reopen_last_s),
        )
        try:
            self._loop.open()
        except DeviceLostError as error:
            raise SourceError(str(error)) from error

    @property
    def name(self) -> str:
        """`microphone`."""
        return "microphone"

    @property
    def has_video(self) -> bool:
        """Never."""
        return False

    @property
    def has_audio(self) -> bool:
        """Always."""
        return True

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Push sound until `stop` is set; then release the microphone and end the sound, not the frames."""

        def accept(block: AudioBlock) -> bool:
            if block.gap:
                self._health.count("microphone.overflows")
            if block.lost:
                self._health.count("microphone.dropped", block.lost // len(block.samples))
            intake.push_audio(block.samples, block.t_ns, block.rate_hz)
            return True

        try:
            self._loop.run(accept, stop)
        finally:
            intake.end_audio()
        self._health.report(self.name, "ended")

    def close(self) -> None:
        """Release the microphone; `run` does it, so this is for a source that was never run."""
        self._loop.close()


def _address(device: int | str | None) -> int | str | None:
    """The device as PortAudio wants it: an index is a number."""
    return int(device) if isinstance(device, str) and device.isdecimal() else device
