"""One stream of a media file as frames or sound with media times; damaged parts are skipped and counted.

Sizes, pixel shapes, channels and rates are checked in every frame before they reach native code, since a
damaged header can change them in the middle of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.resample import MAX_RATE_HZ, MIN_RATE_HZ
from emi_live.rings import MAX_SIDE_PX, AudioBlock
from emi_live.sources.container import broken
from emi_live.sources.stamps import Correction, MediaTimeline, Stamp, StreamName

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler, VideoFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

__all__ = ["MAX_GAP_NS", "DecodedFrame", "StreamReader", "UnusableError"]

MAX_GAP_NS: Final = 120 * NS_PER_S  # a longer gap in all streams at once is skipped
HAS_INDEX: Final = "mov,mp4,m4a,3gp,3g2,mj2"  # FFmpeg's name for MP4 and its kin
MAX_READ_FAILURES: Final = 64  # reading a container is given up after so many failures
DEFAULT_FRAME_NS: Final = NS_PER_S // 25  # how long a frame lasts when the file does not say
MAX_PIXELS: Final = 36_000_000  # 8K has 33 million; a larger frame is scaled down
MAX_DECODED_PIXELS: Final = 8 * MAX_PIXELS  # a frame stated to be larger is damaged: it would need gigabytes
MAX_ASPECT: Final = 10  # no pixel is ten times as wide as high; of anamorphic film it is 2
MAX_CHANNELS: Final = 64  # also FFmpeg's own limit for mixing
MAX_SAMPLES: Final = 16_000_000  # of all channels of one frame
# The decoder invented the stamp of a frame that is this far past all its packets.
ASTRAY_NS: Final = 5 * NS_PER_S
# An end that cannot be decoded is a failure if it is longer than this, and than 5 % of what was read.
LEAST_LOSS_NS: Final = NS_PER_S


class UnusableError(ValueError):
    """A frame or block cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One decoded frame, not converted to RGB yet: a late one need not be."""

    t_ns: int  # media time, 0 = where the container starts
    frame: VideoFrame
    pixel_aspect: Fraction
    stated_aspect: Fraction | None
    converter: VideoReformatter  # of the stream: making one for each frame costs more than the conversion

    def changed_shape(self) -> str:
        """Why the frame is not shown in the size or shape that the file states; empty if it is."""
        width, height, stated = self.frame.width, self.frame.height, self.stated_aspect
        if stated and stated != self.pixel_aspect:
            return f"pixels {float(stated):.3g} times as wide as high are not credible; shown as square"
        wide = max(1, round(width * self.pixel_aspect))
        size = shown_size(width, height, self.pixel_aspect)
        if size == (wide, height):
            return ""
        return f"frames of {wide} x {height} pixels are too large; scaled to {size[0]} x {size[1]}"

    def rgb(self) -> NDArray[np.uint8]:
        """The frame upright, with square pixels and of a bounded size, shape (height, width, 3).

        Raises:
            UnusableError: its pixels cannot be converted.
        """
        width, height = shown_size(self.frame.width, self.frame.height, self.pixel_aspect)
        try:
            square = self.converter.reformat(self.frame, width, height, "rgb24", threads=1)
            pixels = np.asarray(square.to_ndarray(), np.uint8)
        except broken() as error:
            name = getattr(self.frame.format, "name", "unknown")
            raise UnusableError(f"pixels of format {name} cannot be converted") from error
        return upright(pixels, _display_matrix(self.frame))


class StreamReader:
    """Reads one stream of a file to its end, or as far as possible; then `failure` says why not further.

    Each reader needs its own container. `witness` is the other stream of the file that is used: its time
    stamps help to judge those of this one.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream | AudioStream,
        origin_ns: int,
        *,
        witness: VideoStream | AudioStream | None = None,
        max_gap_ns: int = MAX_GAP_NS,
        on_count: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`on_count` is called with `damaged` and with each `Correction`, as often as it happens."""
        self._container = container
        self._stream: Any = stream
        self._witness = witness
        self._origin_ns = origin_ns
        self.on_count = on_count
        self.kind: StreamName = "video" if stream.type == "video" else "audio"
        # FFmpeg would believe any size in a damaged header, and take memory for it.
        limit = {"max_pixels": str(MAX_DECODED_PIXELS)} if self.kind == "video" else {}
        self._stream.codec_context.options = {**self._stream.codec_context.options, **limit}
        self._timeline: MediaTimeline[Packet[Any]] = MediaTimeline(max_gap_ns, self._note_correction)
        self._corrections: list[tuple[Correction, int]] = []
        self._expected_ns = 0
        self.packets = 0  # that held anything
        self.damaged = 0  # packets and frames that were skipped
        self.end_ns = 0  # where the decoded media end
        self.trouble = ""  # the last error, in words
        self.failure = ""  # why the rest of the stream could not be read; empty when it was read to its end

    @property
    def corrections(self) -> list[tuple[Correction, int]]:
        """What was corrected in the time stamps, and at which media time."""
        return self._corrections

    def frames(self) -> Iterator[DecodedFrame]:
        """The frames in order; one without a stamp follows the one before at the stream's rate."""
        from av.video.reformatter import VideoReformatter

        rate = self._stream.average_rate
        usual_ns = round(NS_PER_S / rate) if rate and rate > 0 else DEFAULT_FRAME_NS
        stated = self._stream.sample_aspect_ratio
        aspect = credible_aspect(stated)
        converter = VideoReformatter()
        for frame in self._frames():
            if not 0 < frame.width * frame.height <= MAX_DECODED_PIXELS:
                self.skip(f"a frame of {frame.width} x {frame.height} pixels")
                continue
            t_ns = self._media_ns(frame)
            self._expected_ns = t_ns + usual_ns
            self.end_ns = max(self.end_ns, t_ns)
            yield DecodedFrame(t_ns, frame, aspect, stated, converter)

    def blocks(self) -> Iterator[AudioBlock]:
        """The blocks in order, shape (n, channels): of known layouts one or two channels.

        A block without a stamp follows the one before without a gap.
        """
        downmix = _Downmix()
        for frame in self._frames():
            if frame.samples == 0:
                continue
            t_ns = self._media_ns(frame)
            try:
                pcm = downmix.apply(frame)
            except broken() as error:
                self.skip(_words(error))
                continue
            if pcm.shape[0] == 0:
                continue
            block = AudioBlock(pcm, t_ns, frame.sample_rate)
            self._expected_ns = block.end_ns
            self.end_ns = max(self.end_ns, block.end_ns)
            yield block

    def skip(self, why: str) -> None:
        """Count something that was left out, and remember why."""
        self.damaged += 1
        self.trouble = why
        self.on_count("damaged")

    def _note_correction(self, correction: Correction, stream: StreamName, t_ns: int) -> None:
        if stream == self.kind:  # the other stream's reader notes its own
            self._corrections.append((correction, t_ns))
            self.on_count(correction)

    def _frames(self) -> Iterator[Any]:
        for stamp, packet in self._timeline.correct(self._packets()):
            if packet.stream.index != self._stream.index:
                continue
            self.packets += packet.size > 0
            self._write_stamp(packet, stamp)
            try:
                frames = packet.decode()
            except EOFError:  # flushed before: the container was read on after a failure
                continue
            except broken() as error:
                self.skip(_words(error))
                continue
            yield from frames
        lost_ns = self._timeline.newest_ns(self.kind) - self.end_ns
        if not self.failure and lost_ns > max(LEAST_LOSS_NS, self.end_ns // 20):
            self.failure = self.trouble or "nothing more could be decoded"
        if not self.failure and self._is_cut_off():
            self.failure = "the rest is not in the file"

    def _is_cut_off(self) -> bool:
        """Whether the file's index names much more than there is; other containers only estimate a length."""
        stream = self._stream
        if self._container.format.name != HAS_INDEX or self._corrections or not stream.duration:
            return False
        stated_s = ((stream.start_time or 0) + stream.duration) * Fraction(stream.time_base)
        lost_ns = int(stated_s * NS_PER_S) - self._origin_ns - self.end_ns
        # Both: the last frame of a slide show is long, and a trimmed recording holds more than it shows.
        return lost_ns > max(LEAST_LOSS_NS, self.end_ns // 20) and self.packets < 0.95 * int(stream.frames)

    def _write_stamp(self, packet: Packet[Any], stamp: Stamp) -> None:
        stated = self._stamp(packet)
        base = packet.time_base
        if stamp != stated and base:
            for name, t_ns in (("pts", stamp.pts_ns), ("dts", stamp.dts_ns)):
                ticks = None if t_ns is None else round(Fraction(t_ns + self._origin_ns, NS_PER_S) / base)
                setattr(packet, name, ticks)

    def _packets(self) -> Iterator[tuple[Stamp, Packet[Any]]]:
        streams = [self._stream] if self._witness is None else [self._stream, self._witness]
        for _ in range(MAX_READ_FAILURES):
            try:
                for packet in self._container.demux(streams):
                    yield self._stamp(packet), packet
            except broken() as error:  # IndexError: a stream that appeared after the file was opened
                self.skip(_words(error))
            else:
                return
        self.failure = self.trouble

    def _stamp(self, packet: Packet[Any]) -> Stamp:
        name: StreamName = "video" if packet.stream.type == "video" else "audio"
        base = packet.time_base
        if not base or base < 0:
            return Stamp(name, None, None)

        def media_ns(ticks: int | None) -> int | None:
            return None if ticks is None else round(ticks * NS_PER_S * base) - self._origin_ns

        return Stamp(
            name,
            media_ns(packet.pts),
            media_ns(packet.dts),
            max(0, round((packet.duration or 0) * NS_PER_S * base)),
        )

    def _media_ns(self, frame: VideoFrame | AudioFrame) -> int:
        if frame.pts is None or not frame.time_base:
            return self._expected_ns
        t_ns = round(frame.pts * NS_PER_S * frame.time_base) - self._origin_ns
        astray = (
            t_ns > self._timeline.newest_ns(self.kind) + ASTRAY_NS and t_ns > self._expected_ns + ASTRAY_NS
        )
        return self._expected_ns if astray else int(t_ns)


class _Downmix:
    """Any sample format and layout to float32; known layouts are folded to stereo as ITU-R BS.775 has it.

    A plain mean over 5.1 would bury the centre channel, which carries the speech. Samples are read packed, as
    one plane: over the planes of more than eight channels, numpy would read memory that is not theirs.
    """

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._source: tuple[str, str, int] | None = None
        self._can_fold = True

    def apply(self, frame: AudioFrame) -> NDArray[np.float32]:
        channels, rate_hz = frame.layout.nb_channels, frame.sample_rate
        if not 1 <= channels <= MAX_CHANNELS:
            raise UnusableError(f"sound of {channels} channels; give 1 to {MAX_CHANNELS}")
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise UnusableError(f"sound at {rate_hz} Hz; give {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
        if frame.samples * channels > MAX_SAMPLES:
            raise UnusableError(f"a block of {frame.samples} samples of {channels} channels")
        source = (frame.format.name, frame.layout.name, rate_hz)
        if source != self._source:
            self._source, self._can_fold = source, True
            self._resampler = None
        frame.pts = None  # the stamp is read already, and the converter must not act on a jump in it
        if channels > 2 and self._can_fold and not frame.layout.name.endswith("channels"):
            try:
                return self._convert(frame, "stereo")
            except broken():  # no rule for this layout
                self._can_fold, self._resampler = False, None
        return self._convert(frame, frame.layout)

    def _convert(self, frame: AudioFrame, layout: Any) -> NDArray[np.float32]:
        import av

        if self._resampler is None:
            self._resampler = av.AudioResampler(format="flt", layout=layout, rate=frame.sample_rate)
        parts = []
        for part in self._resampler.resample(frame):
            values = np.frombuffer(part.planes[0], np.float32)  # one plane, whose size numpy checks
            channels = part.layout.nb_channels
            if values.size < part.samples * channels:
                raise UnusableError(f"a block of {part.samples} samples that holds fewer")
            parts.append(values[: part.samples * channels].reshape(part.samples, channels))
        if not parts:
            return np.zeros((0, 1), np.float32)
        return np.clip(np.concatenate(parts), -1.0, 1.0)


def shown_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height with square pixels, made smaller where OpenCV and MediaPipe could not take them."""
    wide = width * pixel_aspect
    scale = min(Fraction(1), Fraction(MAX_SIDE_PX) / wide, Fraction(MAX_SIDE_PX, height))
    if wide * height * scale * scale > MAX_PIXELS:
        scale = Fraction((MAX_PIXELS / (wide * height)) ** 0.5).limit_denominator(1_000_000)
    if scale == 1:
        return max(1, round(wide)), height
    return max(1, int(wide * scale)), max(1, int(height * scale))


def credible_aspect(stated: Fraction | None) -> Fraction:
    """The shape of a pixel, width to height; 1 where the file states none or an impossible one."""
    if not stated or not Fraction(1, MAX_ASPECT) <= stated <= MAX_ASPECT:
        return Fraction(1)
    return stated


def upright(pixels: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """A frame turned and mirrored as its display matrix says, to the nearest quarter turn."""
    if matrix is None:
        return pixels
    (a, b), (c, d) = matrix[:2, :2].astype(np.int64).tolist()
    if a * d == b * c:  # damaged: it would show nothing
        return pixels
    across, down = (a, d)
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _display_matrix(frame: VideoFrame) -> NDArray[np.int32] | None:
    from av.sidedata.sidedata import Type

    try:
        found = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV does not know all kinds of side data, e.g. EXIF; it does know the angle
        turn = np.deg2rad(90 * round(frame.rotation / 90))
        turned = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
        return np.rint(turned).astype(np.int32)
    stated = None if found is None else np.frombuffer(bytes(found), np.int32)
    return stated.reshape(3, 3) if stated is not None and stated.size == 9 else None


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
