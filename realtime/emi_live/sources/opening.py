"""From the configuration to the opened sources."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack

from emi_live.clock import Clock
from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.sources.device import Source
from emi_live.sources.push import PushSource

__all__ = ["open_sources"]

logger = logging.getLogger(__name__)

NO_MICROPHONE = "none"
DEFAULT_MICROPHONE = "default"


def open_sources(config: LiveConfig, clock: Clock, health: Health) -> list[Source]:
    """The sources that the configuration asks for, opened; without any, a source for pushed media.

    A microphone that was not asked for by name may be absent: then `microphone` is reported as failed, and
    the face alone is watched.

    Raises:
        ConfigurationError: the settings contradict each other.
        SourceError: a source that was asked for cannot be opened.
    """
    wanted = config.source
    named_mic = wanted.mic is not None and wanted.mic != NO_MICROPHONE
    if wanted.camera is not None and wanted.input is not None:
        raise ConfigurationError("a camera and a file exclude each other; choose one")
    if wanted.input is None and (wanted.audio_track, wanted.video_track) != (None, None):
        raise ConfigurationError("a track is chosen of a file; give the file with --input")
    if named_mic and config.exact:
        raise ConfigurationError("a microphone cannot be replayed; add --mode live, or leave out --mic")
    sources: list[Source] = []
    with ExitStack() as opened:  # a camera is released again when the microphone with it cannot be had
        for source in _open(config, clock, health, named_mic=named_mic):
            opened.callback(source.close)
            sources.append(source)
        opened.pop_all()
    return sources


def _open(config: LiveConfig, clock: Clock, health: Health, *, named_mic: bool) -> Iterator[Source]:
    wanted = config.source
    listens = False  # to the default microphone, with a camera
    if wanted.is_pushed:
        lead_s = wanted.push_lead_s if config.exact else None
        yield PushSource(audio=wanted.mic is None, lead_s=lead_s, clock=clock, health=health)
    if wanted.input is not None:
        from emi_live.sources.file import FileSource

        pace = None if config.exact else clock
        yield FileSource(
            wanted.input,
            health,
            pace=pace,
            audio=wanted.mic is None,
            audio_track=wanted.audio_track,
            video_track=wanted.video_track,
            max_gap_s=wanted.max_gap_s,
        )
    if wanted.camera is not None:
        from emi_live.sources.camera import CameraSource

        camera = CameraSource(wanted.camera, config.camera, clock, health)
        listens = wanted.mic is None and not camera.recorded
        if camera.recorded and wanted.mic is None:  # the room's sound does not belong to it, and never ends
            logger.warning(
                "the camera is a recording: it is played once, at its own pace, without sound; to hear it, "
                "save it and use --input FILE"
            )
        yield camera
    if named_mic or listens:
        from emi_live.sources.microphone import MicrophoneSource

        try:
            device = None if wanted.mic in (None, DEFAULT_MICROPHONE) else wanted.mic
            yield MicrophoneSource(device, config.microphone, clock, health)
        except SourceError as error:
            if named_mic:
                raise
            health.report("microphone", "failed", str(error))
