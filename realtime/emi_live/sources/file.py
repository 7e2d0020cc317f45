"""A media file as a source: video and sound on one timeline, as fast as they are used or at real pace."""

from __future__ import annotations

import heapq
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from emi_live.clock import NS_PER_MS, NS_PER_S, Clock
from emi_live.errors import PartialSourceError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import AudioBlock
from emi_live.sources.container import (
    MediaTrack,
    candidates,
    is_cut_off,
    open_container,
    require_file,
    stated_length_s,
    tracks_of,
)
from emi_live.sources.decode import MAX_GAP_NS, DecodedFrame, StreamReader, UnusableError
from emi_live.sources.stamps import StreamName

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["FileSource"]

logger = logging.getLogger(__name__)

MAX_WAIT_S: Final = 0.1  # how long one wait for the right moment lasts before the clock is read again
FRAMES_TO_TRY: Final = 16  # if none of the first ones can be converted, the track is not used
WORDS: Final = {"video": "video", "audio": "sound"}
CORRECTIONS: Final = {
    "discontinuities": "the time stamps jump at {:.1f} s; time goes on there without a gap "
    "(file.discontinuities counts such places)",
    "refused_stamps": "a time stamp at {:.1f} s cannot be true and was not used "
    "(file.refused_stamps counts them)",
}
LATE_NS: Final = 200 * NS_PER_MS  # at real pace, a frame this late is left out, as by a camera


@dataclass(frozen=True, slots=True)
class _StreamEnd:
    """One stream has no more media."""

    stream: StreamName
    t_ns: int


Media: TypeAlias = DecodedFrame | AudioBlock


@dataclass(frozen=True, slots=True)
class _Opened:
    """A track that can be decoded, with its first frame or block."""

    track: MediaTrack
    witness: MediaTrack | None
    reader: StreamReader
    first: Media
    rest: Iterator[Media]
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class _Refused:
    """A track that cannot be used."""

    why: str
    damaged: bool  # it holds something, which cannot be decoded


class FileSource:
    """One media file, of any container and codec that FFmpeg knows.

    Time 0 is the container's start. Without `pace`, media are pushed as fast as the intake takes them and
    stamped `origin_ns` plus media time; with it, at real pace by that clock and stamped with the start of
    play plus media time. Cover art is not video, a rotated or mirrored recording is turned upright,
    surround sound is folded to stereo. Counters: `file.damaged` (damaged packets, which were skipped),
    `file.late` (frames that came too late at real pace), `file.discontinuities` and `file.refused_stamps`
    (corrections of wrong time stamps).

    With `audio=False` the file's sound is not read, and the sound of the intake is left to another source.
    """

    def __init__(
        self,
        path: Path,
        health: Health,
        *,
        pace: Clock | None = None,
        origin_ns: int = 0,
        audio: bool = True,
        audio_track: int | str | None = None,
        video_track: int | str | None = None,
        max_gap_s: float = MAX_GAP_NS / NS_PER_S,
    ) -> None:
        """Open the file and decode the first of each stream.

        Raises:
            ConfigurationError: the path is not that of a file, or the file has no such track.
            SourceError: the file cannot be read, or nothing in it can be decoded.
        """
        self._path = path
        self._health = health
        self._pace = pace
        self._origin_ns = origin_ns
        self._owns_audio = audio
        self._running = False
        self._media: Iterator[Media | _StreamEnd] = iter(())
        self._announce: Callable[[Media | _StreamEnd], None] = lambda item: None  # the next media of a stream
        self._max_gap_ns = round(max_gap_s * NS_PER_S)
        self._readers: list[StreamReader] = []
        self._unusable: list[str] = []  # tracks that were tried, in words
        self._failures: list[str] = []  # streams that could not be read at all, in words
        self._warned = False
        self.announcements: list[str] = []  # which tracks are used, where there is a choice
        require_file(path)
        with ExitStack() as opened:
            self._open(opened, {"video": video_track, "audio": audio_track})
            self._opened = opened.pop_all()
        self._warn_of_corrections()

    @property
    def name(self) -> str:
        """`file`."""
        return "file"

    @property
    def has_video(self) -> bool:
        """Whether at least one frame can be decoded."""
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
        """Push all media; each stream ends where its own media end.

        Raises:
            PartialSourceError: after all that could be read, a stream could not be read to its end.
        """
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
            self._announce = partial(_advance, intake, start_ns)
            for item in self._media:
                if stop.is_set() or not self._wait_until(start_ns + _ready_ns(item), stop):
                    break
                self._push(intake, item, start_ns)
                end_ns = max(end_ns, _ready_ns(item))
        finally:
            self._running = False
            self.close()
            intake.end_video()
            if self._owns_audio:
                intake.end_audio()
        self._health.report(self.name, "ended", "" if stop.is_set() else self._verdict(end_ns))

    def close(self) -> None:
        """Close the file of a source that was never run; while it runs, that is for `run` to do."""
        if self._running:  # closing it under a decoder in another thread would crash
            return
        self._media = iter(())
        self._opened.close()

    def _push(self, intake: Intake, item: Media | _StreamEnd, start_ns: int) -> None:
        if isinstance(item, AudioBlock):
            intake.push_audio(item.samples, start_ns + item.t_ns, item.rate_hz)
        elif isinstance(item, _StreamEnd):
            (intake.end_video if item.stream == "video" else intake.end_audio)()
        elif self._pace is not None and self._pace.now_ns() - start_ns - item.t_ns > LATE_NS:
            self._health.count("file.late")
        else:
            try:
                rgb = item.rgb()
            except UnusableError:
                self._count("damaged")
            else:
                intake.push_frame(rgb, start_ns + item.t_ns, given_up=True)

    def _announced(self, media: Iterator[Media | _StreamEnd]) -> Iterator[Media | _StreamEnd]:
        """The media of one stream; the intake is told the time of each before anything else is pushed."""
        for item in media:
            self._announce(item)
            yield item

    def _wait_until(self, due_ns: int, stop: threading.Event) -> bool:
        """False when `stop` was set first."""
        if self._pace is None:
            return True
        while (left_ns := due_ns - self._pace.now_ns()) > 0:
            if stop.wait(min(left_ns / NS_PER_S, MAX_WAIT_S)):
                return False
        return True

    def _open(self, opened: ExitStack, wanted: Mapping[StreamName, int | str | None]) -> None:
        # Video and sound each get their own container: however far apart the file holds them, each is
        # read on its own, and nothing has to be buffered to merge them by time.
        container = opened.enter_context(open_container(self._path))
        self._duration_s = stated_length_s(container)
        kinds: tuple[StreamName, ...] = ("video", "audio") if self._owns_audio else ("video",)
        there: dict[StreamName, list[MediaTrack]] = {}
        to_try: dict[StreamName, list[MediaTrack]] = {}
        for kind in ("video", "audio"):
            there[kind] = tracks_of(container, kind)
            to_try[kind] = candidates(there[kind], wanted[kind] if kind in kinds else None, kind, self._path)
        chosen = {kind: tracks[0] for kind, tracks in to_try.items() if tracks}
        found: dict[StreamName, _Opened] = {}
        for kind in kinds:
            self._choose(opened, kind, to_try[kind], chosen, found)
        if "video" in found and "audio" in found and found["video"].witness != found["audio"].track:
            again = self._try(opened, found["video"].track, found["audio"].track)
            if isinstance(again, _Opened):  # both readers must see the same packets
                found["video"] = again
        self._has_video, self._has_audio = "video" in found, "audio" in found
        if not found:
            self._refuse(container)
        self.announcements += [f"file: {text}" for text in self._unusable]
        for kind, one in found.items():
            self._note_choice(kind, one, there[kind])
            for name, count in one.counts.items():
                self._health.count(f"file.{name}", count)
            one.reader.on_count = self._count
        self._readers = [one.reader for one in found.values()]
        self._media = heapq.merge(
            *(self._announced(_with_end(one.first, one.rest, kind)) for kind, one in found.items()),
            key=_ready_ns,
        )
        facts = [one.track.facts for one in found.values()]
        if self._duration_s is not None:
            facts.append(f"{self._duration_s:.1f} s")
        self._description = f"{self._path.name}: {', '.join(facts)}"

    def _choose(
        self,
        opened: ExitStack,
        kind: StreamName,
        to_try: Sequence[MediaTrack],
        chosen: dict[StreamName, MediaTrack],
        found: dict[StreamName, _Opened],
    ) -> None:
        """The first track of a kind that can be decoded; what is wrong with those before it is noted."""
        other = chosen.get("audio" if kind == "video" else "video")
        broken: list[str] = []
        for track in to_try:
            one = self._try(opened, track, other)
            if isinstance(one, _Opened):
                found[kind], chosen[kind] = one, track
                return
            self._unusable.append(f"{kind} track {track.number} cannot be used: {one.why}")
            if one.damaged:
                broken.append(f"its {WORDS[kind]} could not be read ({one.why})")
        self._failures += broken[:1]

    def _try(self, opened: ExitStack, track: MediaTrack, witness: MediaTrack | None) -> _Opened | _Refused:
        """Open a track and decode the first of it."""
        with ExitStack() as kept:
            container = kept.enter_context(open_container(self._path))
            counts: Counter[str] = Counter()
            if track.index >= len(container.streams):  # damaged: it has changed since the last look
                return _Refused("it is not there any more", damaged=True)
            other = None if witness is None else container.streams[witness.index]
            reader = StreamReader(
                container,
                container.streams[track.index],  # type: ignore[arg-type]  # of the kind that the track is
                (container.start_time or 0) * 1_000,  # libav counts microseconds
                witness=other,  # type: ignore[arg-type]  # as above
                max_gap_ns=self._max_gap_ns,
                on_count=lambda name: counts.update((name,)),
            )
            media: Iterator[Media] = reader.frames() if track.kind == "video" else reader.blocks()
            first = next(_usable(media, reader), None)
            if first is None:
                nothing = "nothing in it can be decoded" if reader.packets else "it is empty"
                why = f"{track.facts}: {reader.trouble or nothing}"
                return _Refused(why, damaged=reader.damaged > 0)
            if isinstance(first, DecodedFrame) and (changed := first.changed_shape()):
                self.announcements.append(f"file: {changed}")
            opened.push(kept.pop_all())
            return _Opened(track, witness, reader, first, media, counts)

    def _refuse(self, container: InputContainer) -> NoReturn:
        found = ", ".join(sorted(stream.type for stream in container.streams)) or "nothing"
        wanted = "video or sound" if self._owns_audio else "video"
        why = "; ".join(self._unusable)
        raise SourceError(
            f"{self._path} holds no {wanted} that can be decoded (found: {found}"
            f"{'; ' + why if why else ''}); try another file"
        )

    def _note_choice(self, kind: StreamName, one: _Opened, there: Sequence[MediaTrack]) -> None:
        if len(there) > 1:
            others = "; ".join(str(track) for track in there if track != one.track)
            self.announcements.append(
                f"file: {WORDS[kind]}: track {one.track}; not used: {others}; "
                f"choose with --{kind}-track N|LANG"
            )

    def _verdict(self, end_ns: int) -> str:
        """How far the file was read, if not to its end; failures are raised.

        Raises:
            PartialSourceError: a stream could not be read to its end.
        """
        failures = list(self._failures)
        stated = "" if self._duration_s is None else f" of {self._duration_s:.1f} s"
        for reader in self._readers:
            if reader.failure:
                failures.append(
                    f"its {WORDS[reader.kind]} could be read to {reader.end_ns / NS_PER_S:.1f} s{stated} "
                    f"({reader.damaged} damaged packets were skipped; {reader.failure})"
                )
        if failures:
            text = "; ".join(failures)
            self._health.report(self.name, "ended", text)
            raise PartialSourceError(f"{self._path}: {text}; get a better copy, or use what there is")
        return self._shortfall(end_ns / NS_PER_S)

    def _shortfall(self, end_s: float) -> str:
        """In words, that the file is cut off; empty if it is not."""
        stated_s = self._duration_s or 0.0
        text = ""
        # Some containers only estimate their length; one whose stamps are wrong does not know it.
        if stated_s - end_s > max(1.0, 0.05 * stated_s) and not any(
            reader.corrections for reader in self._readers
        ):
            text = f"the media end at {end_s:.1f} s of {stated_s:.1f} s; the file may be cut off"
        elif is_cut_off(self._path):
            text = f"the file ends in the middle of a packet, at {end_s:.1f} s; it may be cut off"
        if text:
            logger.warning("%s: %s", self._path, text)
        return text

    def _count(self, name: str) -> None:
        self._health.count(f"file.{name}")
        if name != "damaged" and not self._warned:
            self._warn_of_corrections()

    def _warn_of_corrections(self) -> None:
        """Log once that time stamps were corrected."""
        corrections = [one for reader in self._readers for one in reader.corrections]
        if corrections:
            self._warned = True
            correction, t_ns = corrections[0]
            logger.warning("%s: %s", self._path, CORRECTIONS[correction].format(t_ns / NS_PER_S))


def _advance(intake: Intake, start_ns: int, item: Media | _StreamEnd) -> None:
    """Tell the intake that nothing of the item's stream comes before it."""
    if isinstance(item, DecodedFrame):
        intake.advance_video(start_ns + item.t_ns)
    elif isinstance(item, AudioBlock):
        intake.advance_audio(start_ns + item.t_ns)


def _ready_ns(item: Media | _StreamEnd) -> int:
    """When a device would have given it: a frame at once, a block of sound at its end."""
    return item.end_ns if isinstance(item, AudioBlock) else item.t_ns


def _with_end(first: Media, rest: Iterable[Media], stream: StreamName) -> Iterator[Media | _StreamEnd]:
    """The media of one stream, then its end."""
    yield first
    ready_ns = _ready_ns(first)
    for item in rest:
        ready_ns = _ready_ns(item)
        yield item
    yield _StreamEnd(stream, ready_ns)


def _usable(media: Iterator[Media], reader: StreamReader) -> Iterator[Media]:
    """The media from the first on that can be converted; none if that takes too long."""
    for item in islice(media, FRAMES_TO_TRY):
        if isinstance(item, DecodedFrame):
            try:
                item.rgb()
            except UnusableError as error:
                reader.skip(str(error))
                continue
        yield item
