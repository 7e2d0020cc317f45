"""Media from the program that embeds the engine, as one more source."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from emi_live.errors import SourceError
from emi_live.intake import Intake

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PushSource"]

ATTACH_TIMEOUT_S: Final = 5.0  # `run` starts within milliseconds of the engine
SLICE_S: Final = 0.1  # longest wait before looking again whether the engine stops


class PushSource:
    """Passes on what a program pushes while `run` holds the door open.

    Frames and sound may be pushed from one thread each, which are not the one in `run`.
    """

    name = "push"

    def __init__(self, *, video: bool = True, audio: bool = True) -> None:
        """Say which kinds of media will come."""
        self._video = video
        self._audio = audio
        self._intake: Intake | None = None
        self._attached = threading.Event()
        self._ended = threading.Event()

    @property
    def has_video(self) -> bool:
        """Whether pictures will be pushed."""
        return self._video

    @property
    def has_audio(self) -> bool:
        """Whether sound will be pushed."""
        return self._audio

    def push_frame(self, rgb: NDArray[np.uint8], t_ns: int) -> None:
        """Give one picture, as `Intake.push_frame`."""
        self._door().push_frame(rgb, t_ns)

    def push_audio(
        self, pcm: NDArray[np.float32] | NDArray[np.int16] | NDArray[np.int32], t_ns: int, rate_hz: int
    ) -> None:
        """Give one block of sound, as `Intake.push_audio`."""
        self._door().push_audio(pcm, t_ns, rate_hz)

    def end_video(self) -> None:
        """No more pictures will be pushed."""
        self._door().end_video()

    def end_audio(self) -> None:
        """No more sound will be pushed."""
        self._door().end_audio()

    def end(self) -> None:
        """No more media will be pushed; may be said before `run`."""
        if self._intake is not None:
            self._intake.end_video()
            self._intake.end_audio()
        self._ended.set()

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Hold the door open until `end`, or `stop`."""
        self._intake = intake
        self._attached.set()
        while not stop.is_set() and not self._ended.wait(SLICE_S):
            pass
        intake.end_video()
        intake.end_audio()

    def close(self) -> None:
        """Nothing is held."""

    def _door(self) -> Intake:
        if not self._attached.wait(ATTACH_TIMEOUT_S) or self._intake is None:
            raise SourceError(
                "the engine does not take media yet; push inside `with LiveEngine(config) as live:`"
            )
        return self._intake
