"""A media file as a source: picture and sound on one timeline, as fast as they are taken or at real pace."""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from emi_live.clock import NS_PER_MS, NS_PER_S, Clock
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.sources.container import is_cover, open_container, require_file
from emi_live.sources.decode import Picture, Sound, pictures, sounds

__all__ = ["FileSource"]

logger = logging.getLogger(__name__)

MAX_WAIT_S: Final = 0.1  # how long one wait for the right moment lasts before the clock is read again
LATE_NS: Final = 200 * NS_PER_MS  # a picture this late at real pace is left out, as a camera would


@dataclass(frozen=True, slots=True)
class _End:
    """One stream has no more media."""

    stream: Literal["video", "audio"]
    ready_ns: int


Media: TypeAlias = Picture | Sound | _End


class FileSource:
    """One media file, of any container and codec that FFmpeg knows.

    Time 0 is the container's start. Without `pace`, media are pushed as fast as the intake takes them and
    stamped `origin_ns` plus media time; with it, at real pace by that clock and stamped with the start of
    play plus media time. Cover art is not a picture, a rotated recording is turned upright, surround sound is
    folded to stereo. Damaged packets are skipped and counted as `file.damaged`; pictures too late at real
    pace as `file.late`.

    With `audio=False` the file's sound is not read, and the sound of the intake is left to another source.
    """

    def __init__(
        self, path: Path, health: Health, *, pace: Clock | None = None, origin_ns: int = 0, audio: bool = True
    ) -> None:
        """Open the file and decode the first of each stream.

        Raises:
            ConfigurationError: the path is not that of a file.
            SourceError: the file cannot be read, or nothing in it can be decoded.
        """
        self._path = path
        self._health = health
        self._pace = pace
        self._origin_ns = origin_ns
        self._owns_audio = audio
        self._running = False
        self._media: Iterator[Media] = iter(())
        require_file(path)
        with ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()

    @property
    def name(self) -> str:
        """`file`."""
        return "file"

    @property
    def has_video(self) -> bool:
        """Whether at least one picture can be decoded."""
        return self._has_video

    @property
    def has_audio(self) -> bool:
        """Whether at least one block of sound can be decoded, and is wanted."""
        return self._has_audio

    @property
    def duration_s(self) -> float | None:
        """Length as the container states it; None when it does not."""
        return self._duration_s

    @property
    def description(self) -> str:
        """What is in the file, e.g. `clip.mp4: h264 640x360, aac 44100 Hz stereo, 11.0 s`."""
        return self._description

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Push all media; each stream ends where its own media end."""
        start_ns = self._origin_ns if self._pace is None else self._pace.now_ns()
        end_ns = 0
        self._running = True
        self._health.report(self.name, "running", self._description)
        if self._duration_s is not None:
            self._health.note("file.duration_s", self._duration_s)
        try:
            if not self._has_video:
                intake.end_video()
            if not self._has_audio and self._owns_audio:
                intake.end_audio()
            for item in self._media:
                if stop.is_set() or not self._wait_until(start_ns + item.ready_ns, stop):
                    break
                self._push(intake, item, start_ns)
                end_ns = max(end_ns, item.ready_ns)
        finally:
            self._running = False
            self.close()
            intake.end_video()
            if self._owns_audio:
                intake.end_audio()
        self._health.report(self.name, "ended", "" if stop.is_set() else self._shortfall(end_ns / NS_PER_S))

    def close(self) -> None:
        """Close the file of a source that was never run; while it runs, that is for `run` to do."""
        if self._running:  # closing it under a decoder in another thread would crash
            return
        self._media = iter(())
        self._opened.close()

    def _push(self, intake: Intake, item: Media, start_ns: int) -> None:
        if isinstance(item, Sound):
            intake.push_audio(item.pcm, start_ns + item.t_ns, item.rate_hz)
        elif isinstance(item, _End):
            (intake.end_video if item.stream == "video" else intake.end_audio)()
        elif self._pace is not None and self._pace.now_ns() - start_ns - item.t_ns > LATE_NS:
            self._health.count("file.late")
        else:
            intake.push_frame(item.rgb(), start_ns + item.t_ns)

    def _wait_until(self, due_ns: int, stop: threading.Event) -> bool:
        """False when `stop` was set first."""
        if self._pace is None:
            return True
        while (left_ns := due_ns - self._pace.now_ns()) > 0:
            if stop.wait(min(left_ns / NS_PER_S, MAX_WAIT_S)):
                return False
        return True

    def _open(self, opened: ExitStack) -> None:
        # Picture and sound each get a container of their own: however far apart the file holds them, each is
        # read on its own, and nothing has to be buffered to merge them by time.
        container = opened.enter_context(open_container(self._path))
        origin_ns = (container.start_time or 0) * 1_000  # libav counts microseconds
        streams: list[Iterator[Media]] = []
        facts: list[str] = []

        first: Picture | Sound | None = None
        video = next((s for s in container.streams.video if s.codec_context and not is_cover(s)), None)
        if video is not None:
            shown = pictures(container, video, origin_ns, self._count_damage)
            first = next(shown, None)
            if first is not None:
                streams.append(_with_end(first, shown, "video"))
                facts.append(f"{video.codec_context.name} {video.width}x{video.height}")
        self._has_video = first is not None

        first = None
        if self._owns_audio and any(s.codec_context for s in container.streams.audio):
            separate = opened.enter_context(open_container(self._path))
            sound = next(s for s in separate.streams.audio if s.codec_context)
            heard = sounds(separate, sound, origin_ns, self._count_damage)
            first = next(heard, None)
            if first is not None:
                streams.append(_with_end(first, heard, "audio"))
                facts.append(f"{sound.codec_context.name} {sound.rate} Hz {sound.layout.name}")
        self._has_audio = first is not None

        if not streams:
            found = ", ".join(sorted(s.type for s in container.streams)) or "nothing"
            wanted = "picture or sound" if self._owns_audio else "picture"
            raise SourceError(
                f"{self._path} holds no {wanted} that can be decoded (found: {found}); try another file"
            )
        self._media = heapq.merge(*streams, key=_ready_ns)
        self._duration_s = None if container.duration is None else container.duration / 1e6
        if self._duration_s is not None:
            facts.append(f"{self._duration_s:.1f} s")
        self._description = f"{self._path.name}: {', '.join(facts)}"

    def _shortfall(self, end_s: float) -> str:
        """In words, that the file is cut off; empty if it is not."""
        stated_s = self._duration_s or 0.0
        if stated_s - end_s <= max(1.0, 0.05 * stated_s):  # some containers only estimate their length
            return ""
        logger.warning(
            "%s: the media end at %.1f s of %.1f s; the file may be cut off", self._path, end_s, stated_s
        )
        return f"the media end at {end_s:.1f} s of {stated_s:.1f} s; the file may be cut off"

    def _count_damage(self) -> None:
        self._health.count("file.damaged")


def _ready_ns(item: Media) -> int:
    return item.ready_ns


def _with_end(
    first: Picture | Sound, rest: Iterable[Picture | Sound], stream: Literal["video", "audio"]
) -> Iterator[Media]:
    """The media of one stream, then its end."""
    yield first
    ready_ns = first.ready_ns
    for item in rest:
        ready_ns = item.ready_ns
        yield item
    yield _End(stream, ready_ns)
