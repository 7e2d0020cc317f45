"""A microphone as a source of sound, watched for silence of the device, which is not silence in the room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from emi_live.clock import Clock
from emi_live.config import MicrophoneConfig
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.sources.device import DeviceLoop, DeviceLostError, Feed
from emi_live.sources.portaudio import PortAudioInputs, SoundBlock
from emi_live.worker import Backoff

__all__ = ["MicrophoneSource"]

START_PATIENCE: Final = (
    4  # times `silent_device_s`: sound servers take up to two seconds to send the first block
)


class MicrophoneSource:
    """One microphone, by name, part of a name, or index; None is the system's choice.

    Blocks are stamped with the time of the converter, mapped to the engine's clock. When no block comes for
    `silent_device_s` the microphone is reported as `failed` ("no audio arriving") and opened again for as
    long as it takes. Losses in the driver are counted as `microphone.overflows`, blocks not taken in time as
    `microphone.dropped`.
    """

    def __init__(
        self,
        device: int | str | None,
        config: MicrophoneConfig,
        clock: Clock,
        health: Health,
        *,
        connect: Callable[[], Feed[SoundBlock]] | None = None,
    ) -> None:
        """Open the microphone and wait for its first block.

        Args:
            device: index, name or part of a name; None for the system's choice.
            config: how it is opened and watched.
            clock: the clock of capture times.
            health: gets the part `microphone` and the counters `microphone.*`.
            connect: opens the device; the default uses PortAudio.

        Raises:
            SourceError: PortAudio is missing, there is no such microphone, or nothing comes of it.
        """
        self._health = health
        self._loop = DeviceLoop[SoundBlock](
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
        """Push sound until `stop` is set; then release the microphone and end the sound, not the pictures."""

        def accept(block: SoundBlock) -> bool:
            if block.overflowed:
                self._health.count("microphone.overflows")
            if block.dropped:
                self._health.count("microphone.dropped", block.dropped)
            intake.push_audio(block.pcm, block.t_ns, block.rate_hz)
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
