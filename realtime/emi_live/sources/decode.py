"""One stream of a media file as pictures or sound with media times; damaged parts are skipped and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler, VideoFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

__all__ = ["Picture", "Sound", "pictures", "sounds"]

MAX_READ_FAILURES: Final = 64  # a container that fails this often to give a packet is given up
DEFAULT_FRAME_NS: Final = NS_PER_S // 25  # how long a picture lasts when the file does not say

OnDamage = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture, not converted yet: a late one need not be."""

    t_ns: int  # media time, 0 = where the container starts
    frame: VideoFrame
    pixel_aspect: Fraction
    converter: VideoReformatter  # of the stream: making one for each picture costs more than the conversion

    @property
    def ready_ns(self) -> int:
        """When a camera would have given it."""
        return self.t_ns

    def rgb(self) -> NDArray[np.uint8]:
        """The picture upright and with square pixels, shape (height, width, 3)."""
        width = max(1, round(self.frame.width * self.pixel_aspect))
        square = self.converter.reformat(self.frame, width, self.frame.height, "rgb24", threads=1)
        pixels = np.asarray(square.to_ndarray(), np.uint8)
        return np.rot90(pixels, round(self.frame.rotation / 90))


@dataclass(frozen=True, slots=True)
class Sound:
    """One decoded block, shape (n, channels) with one or two channels, float32 in [-1, 1]."""

    t_ns: int
    pcm: NDArray[np.float32]
    rate_hz: int

    @property
    def ready_ns(self) -> int:
        """When a microphone would have given it: at its end."""
        return self.t_ns + int(self.pcm.shape[0]) * NS_PER_S // self.rate_hz


def pictures(
    container: InputContainer, stream: VideoStream, origin_ns: int, on_damage: OnDamage
) -> Iterator[Picture]:
    """The pictures of a stream in order; one without a stamp follows the one before at the stream's rate."""
    from av.video.reformatter import VideoReformatter

    rate = stream.average_rate
    usual_ns = round(NS_PER_S / rate) if rate else DEFAULT_FRAME_NS
    aspect = stream.sample_aspect_ratio or Fraction(1)
    converter = VideoReformatter()
    expected_ns = 0
    for frame in _frames(container, stream, on_damage):
        t_ns = _media_ns(frame, origin_ns, expected_ns)
        expected_ns = t_ns + usual_ns
        yield Picture(t_ns, frame, aspect, converter)


def sounds(
    container: InputContainer, stream: AudioStream, origin_ns: int, on_damage: OnDamage
) -> Iterator[Sound]:
    """The blocks of a stream in order; one without a stamp follows the one before without a gap."""
    downmix = _Downmix()
    expected_ns = 0
    for frame in _frames(container, stream, on_damage):
        if frame.samples == 0:
            continue
        t_ns = _media_ns(frame, origin_ns, expected_ns)
        sound = Sound(t_ns, downmix.apply(frame), frame.sample_rate)
        expected_ns = sound.ready_ns
        yield sound


class _Downmix:
    """Any sample format and layout to float32 of one or two channels, folded as ITU-R BS.775 has it.

    A plain mean over 5.1 would bury the centre channel, which carries the speech.
    """

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._source: tuple[str, str, int] | None = None

    def apply(self, frame: AudioFrame) -> NDArray[np.float32]:
        import av

        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._source:
            known = frame.layout.nb_channels > 2 and not frame.layout.name.endswith("channels")
            layout = "stereo" if known else frame.layout
            self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=frame.sample_rate)
            self._source = source
        assert self._resampler is not None  # noqa: S101  # made above
        frame.pts = None  # the stamp is read already, and the converter must not act on a jump in it
        parts = [part.to_ndarray() for part in self._resampler.resample(frame)]
        pcm = np.concatenate(parts, axis=1).T.astype(np.float32, copy=False)
        return np.clip(pcm, -1.0, 1.0)


def _frames(
    container: InputContainer, stream: VideoStream | AudioStream, on_damage: OnDamage
) -> Iterator[Any]:
    import av

    for packet in _packets(container, stream, on_damage):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            on_damage()
            continue
        yield from frames


def _packets(
    container: InputContainer, stream: VideoStream | AudioStream, on_damage: OnDamage
) -> Iterator[Packet[Any]]:
    import av

    for _ in range(MAX_READ_FAILURES):
        try:
            yield from container.demux(stream)
        except av.FFmpegError:
            on_damage()
        else:
            return


def _media_ns(frame: VideoFrame | AudioFrame, origin_ns: int, expected_ns: int) -> int:
    if frame.pts is None or frame.time_base is None:
        return expected_ns
    t_ns = round(Fraction(frame.pts * NS_PER_S) * frame.time_base)
    return int(t_ns) - origin_ns
