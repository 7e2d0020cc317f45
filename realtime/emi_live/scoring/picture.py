"""Pictures of a scored clip: `plot` draws curves, states and words; `overlay` draws them over the clip."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from errno import ENOSPC
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_live.errors import SourceError
from emi_live.scoring.files import lines_of
from emi_models import EMOTIONS, MODALITIES
from emi_models.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_live.scoring.clip import Scores
    from emi_live.scoring.files import Span

__all__ = ["colour_of", "has_picture", "overlay", "plot"]

# Okabe and Ito's colours, which colour-blind people can tell apart; as on the page of `emi serve`.
COLOURS: Final = dict(
    zip(EMOTIONS, ("#cc79a7", "#e69f00", "#d55e00", "#0072b2", "#009e73", "#c9b800"), strict=True)
)
OTHERS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
STATES: Final = {"live": "#009e73", "stale": "#e69f00", "missing": "#bdbdbd", "failed": "#d55e00"}


def colour_of(name: str, place: int) -> str:
    """The colour of one value; other values than the six emotions take theirs by their place."""
    return COLOURS.get(name) or OTHERS[place % len(OTHERS)]


def plot(scores: Scores, path: Path, *, title: str = "") -> None:
    """Draw a clip: a curve for each value with its interval, the states, and the words.

    Args:
        scores: the clip.
        path: a name that ends in .png, .svg or .pdf.
        title: above the curves; the clip's name if empty.

    Raises:
        WriteError: it cannot be written there.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    times = scores["t"]
    length_s = max(scores.duration_s, scores.hop_s)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "emi-live", "font.size": 9}):
        figure = Figure(figsize=(min(24.0, max(9.0, length_s / 4)), 5.4), layout="constrained")
        curves, states, words = figure.subplots(
            3, sharex=True, gridspec_kw={"height_ratios": (10, 1.6, 2.2), "hspace": 0.02}
        )
        for place, name in enumerate(scores.targets):
            low, high = scores.limits[place]
            colour = colour_of(name, place)
            values = (scores[name] - low) / (high - low)
            if f"{name}_low" in scores:
                band = [(scores[f"{name}_{end}"] - low) / (high - low) for end in ("low", "high")]
                curves.fill_between(times, *band, color=colour, alpha=0.12, linewidth=0)
            curves.plot(times, values, color=colour, linewidth=1.6)
        _label_ends(curves, scores)
        curves.set_ylim(-0.02, 1.02)
        curves.set_ylabel("intensity" if set(scores.limits) == {(0.0, 1.0)} else "share of the range")
        curves.grid(axis="y", alpha=0.25)
        curves.set_title(title or scores["file"][0], loc="left", fontsize=10)
        _draw_states(states, scores)
        _draw_words(words, lines_of(scores.words), length_s)
        words.set_xlim(0.0, length_s)
        words.set_xlabel("seconds")
        for axes in (curves, states, words):
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        with replacing(path) as part:
            figure.savefig(part, format=path.suffix.removeprefix(".").lower() or "png", dpi=130)


def _label_ends(axes: Any, scores: Scores) -> None:
    """The names at the right end of their curves, moved apart so that all can be read."""
    order = sorted(range(len(scores.targets)), key=lambda place: float(scores[scores.targets[place]][-1]))
    gap = min(0.055, 1.0 / max(1, len(order)))
    at = -1.0
    places: dict[int, float] = {}
    for rank, place in enumerate(order):
        low, high = scores.limits[place]
        value = (float(scores[scores.targets[place]][-1]) - low) / (high - low)
        room = 1.0 - gap * (len(order) - 1 - rank)
        at = min(max(value, at + gap), room)
        places[place] = at
    for place, height in places.items():
        name = scores.targets[place]
        axes.annotate(
            f" {name.replace('_', ' ')}",
            (1.0, height),
            xycoords=("axes fraction", "data"),
            color=colour_of(name, place),
            va="center",
            fontweight="bold",
            annotation_clip=False,
        )


def _draw_states(axes: Any, scores: Scores) -> None:
    """A strip for each modality: live, stale, missing or failed."""
    times, hop_s = scores["t"], scores.hop_s
    for row, modality in enumerate(MODALITIES):
        found = scores[f"{modality}_state"]
        start = 0
        for place in range(1, len(found) + 1):
            if place == len(found) or found[place] != found[start]:
                begin = max(0.0, times[start] - hop_s)
                colour = STATES.get(found[start], "#757575")
                axes.broken_barh([(begin, times[place - 1] - begin)], (-row - 0.4, 0.8), color=colour)
                start = place
    axes.set_yticks([0, -1, -2], MODALITIES)
    axes.set_ylim(-2.6, 0.6)
    present = {state for modality in MODALITIES for state in scores[f"{modality}_state"]}
    for rank, state in enumerate(sorted(present)):
        axes.annotate(
            f" {state}",
            (1.0, -rank),
            xycoords=("axes fraction", "data"),
            color=STATES.get(state, "#757575"),
            va="center",
            annotation_clip=False,
        )


def _draw_words(axes: Any, lines: Sequence[Span], length_s: float) -> None:
    """The words as lines of text on three rows, each from where it is said."""
    axes.set_yticks([])
    axes.set_ylim(-2.7, 0.7)
    axes.set_ylabel("words", rotation=0, ha="right", va="center")
    for rank, line in enumerate(lines):
        row = -(rank % 3)
        axes.plot([line.start_s, line.end_s], [row - 0.42] * 2, color="#9e9e9e", linewidth=1)
        axes.text(line.start_s, row - 0.3, line.text, fontsize=8, va="bottom", clip_on=True, parse_math=False)


def has_picture(path: Path) -> bool:
    """Whether the file has a video stream, other than cover art."""
    import av
    from av.stream import Disposition

    try:
        with av.open(str(path)) as container:
            return any(
                not stream.disposition & Disposition.attached_pic for stream in container.streams.video
            )
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{path}: {error}") from error


PANEL: Final = 0.30  # the panel's width, as a share of the picture's
SOUND_RATE_HZ: Final = 48_000
CLOCK_HZ: Final = 90_000  # of the copy's time stamps
VIDEO_RATE: Final = 30  # where the file does not say
MAX_SIDE: Final = 1280  # of the copy; a larger picture is scaled down


def overlay(clip: Path, scores: Scores, path: Path) -> None:
    """Write a copy of the clip (MP4: H.264, AAC) with bars and words drawn over it.

    Args:
        clip: the file that was scored; it has a picture.
        scores: its scores.
        path: where to write, a name that ends in .mp4.

    Raises:
        SourceError: the clip has no picture, or cannot be decoded.
        WriteError: it cannot be written there.
    """
    import av

    if not has_picture(clip):
        raise SourceError(f"{clip}: it has no picture to draw on")
    try:
        with replacing(path) as part, ExitStack() as opened:
            try:
                source = opened.enter_context(av.open(str(clip)))
                target = opened.enter_context(av.open(str(part), "w", format="mp4"))
                _copy(source, target, scores, _size_of(clip))
            except (av.FFmpegError, ValueError) as error:
                if isinstance(error, OSError) and error.errno == ENOSPC:
                    raise
                raise _NotCopiedError(str(error)) from error  # an OSError would be one of the disk
    except _NotCopiedError as error:
        raise SourceError(f"{clip}: it cannot be copied with an overlay: {error}") from error


class _NotCopiedError(Exception):
    """The clip cannot be decoded, or its pictures cannot be encoded."""


def _size_of(clip: Path) -> tuple[int, int]:
    """Width and height of the clip's first picture as it is shown; the copy needs them before its sound."""
    import av

    with av.open(str(clip)) as source:
        for frame in source.decode(video=0):
            height, width, _ = _upright(frame).shape
            return width, height
    raise ValueError("none of its pictures can be decoded")


def _copy(source: Any, target: Any, scores: Scores, size: tuple[int, int]) -> None:
    import av

    pictures = source.streams.video[0]
    sounds = source.streams.audio[0] if source.streams.audio else None
    began_s = (source.start_time or 0) / av.time_base
    drawer = _Drawer(scores)
    video: Any = target.add_stream(_codec(), rate=pictures.average_rate or VIDEO_RATE)
    (video.width, video.height), video.pix_fmt = size, "yuv420p"
    video.codec_context.time_base = Fraction(1, CLOCK_HZ)
    sound: Any = None if sounds is None else target.add_stream("aac", rate=SOUND_RATE_HZ)
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_RATE_HZ)
    last = -1
    for packet in source.demux([stream for stream in (pictures, sounds) if stream is not None]):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue  # the engine has left it out as well
        for frame in frames:
            if isinstance(frame, av.AudioFrame):
                for piece in resampler.resample(frame):
                    target.mux(sound.encode(piece))
                continue
            at_s = 0.0 if frame.time is None else max(0.0, frame.time - began_s)
            rgb = drawer.draw(_upright(frame), at_s)
            stamp = max(last + 1, round(at_s * CLOCK_HZ))
            last = stamp
            drawn = av.VideoFrame.from_ndarray(_fit(rgb, video.width, video.height), format="rgb24")
            drawn.pts, drawn.time_base = stamp, Fraction(1, CLOCK_HZ)
            target.mux(video.encode(drawn))
    for stream in (video, sound):
        if stream is not None:
            target.mux(stream.encode(None))


def _codec() -> str:
    """H.264 if this build of FFmpeg can write it."""
    import av

    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _upright(frame: Any) -> NDArray[np.uint8]:
    """The picture as it is shown, with even sides of at most `MAX_SIDE`."""
    scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale / 2) * 2) for side in (frame.width, frame.height))
    rgb = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


def _fit(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A picture of the first one's size, should the file change it."""
    if rgb.shape[:2] == (height, width):
        return rgb
    import cv2

    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class _Drawer:
    """Draws the newest estimate and the words said last; a panel is kept until it changes."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._lines = lines_of(scores.words)
        self._panels: dict[tuple[int, int, int], NDArray[np.uint8]] = {}
        self._texts: dict[tuple[str, int], NDArray[np.uint8]] = {}

    def draw(self, rgb: NDArray[np.uint8], at_s: float) -> NDArray[np.uint8]:
        """The picture, (height, width, 3), with what is known of `at_s`."""
        height, width, _ = rgb.shape
        row = int(np.searchsorted(self._scores["t"], at_s, side="right")) - 1
        if row >= 0:
            if (row, width, height) not in self._panels:
                self._panels = {(row, width, height): self._panel(row, width)}
            _blend(rgb, self._panels[row, width, height], (8, 8))
        said = next(
            (line.text for line in reversed(self._lines) if line.start_s <= at_s <= line.end_s + 1.0), ""
        )
        if said:
            if (said, width) not in self._texts:
                self._texts = {(said, width): self._words(said, width)}
            text = self._texts[said, width]
            _blend(rgb, text, (max(0, (width - text.shape[1]) // 2), max(0, height - text.shape[0] - 8)))
        return rgb

    def _panel(self, row: int, width: int) -> NDArray[np.uint8]:
        from PIL import Image, ImageDraw

        scores, size = self._scores, max(11, width // 48)
        wide, line = max(170, round(width * PANEL)), round(size * 1.5)
        picture = Image.new("RGBA", (wide, line * len(scores.targets) + size), (0, 0, 0, 150))
        draw, font = ImageDraw.Draw(picture), _font(size)
        left = round(wide * 0.52)
        for place, name in enumerate(scores.targets):
            low, high = scores.limits[place]
            value = float(scores[name][row])
            share = (value - low) / (high - low)
            top = size // 2 + place * line
            draw.text((size // 2, top), name.replace("_", " "), fill="white", font=font)
            full = wide - left - size * 3
            box = (left, top + 2, left + full, top + size + 2)
            draw.rectangle(box, fill=(110, 110, 110, 170))
            filled = (left, top + 2, left + max(1, round(full * share)), top + size + 2)
            draw.rectangle(filled, fill=colour_of(name, place))
            draw.text((wide - round(size * 2.6), top), f"{value:.2f}", fill="white", font=font)
        return np.asarray(picture)

    def _words(self, said: str, width: int) -> NDArray[np.uint8]:
        from PIL import Image, ImageDraw

        size = max(13, width // 34)
        font = _font(size)
        while size > 8 and font.getlength(said) > width - 16:
            size -= 1
            font = _font(size)
        picture = Image.new(
            "RGBA", (min(width, int(font.getlength(said)) + size), round(size * 1.6)), (0, 0, 0, 150)
        )
        ImageDraw.Draw(picture).text((size // 2, size // 5), said, fill="white", font=font)
        return np.asarray(picture)


def _font(size: int) -> Any:
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _blend(rgb: NDArray[np.uint8], over: NDArray[np.uint8], at: tuple[int, int]) -> None:
    """Lay an RGBA picture over an RGB one, in place; what does not fit is cut off."""
    left, top = at
    part = rgb[top : top + over.shape[0], left : left + over.shape[1]]
    over = over[: part.shape[0], : part.shape[1]]
    share = over[..., 3:].astype(np.float32) / 255
    part[:] = (part * (1 - share) + over[..., :3] * share).astype(np.uint8)
