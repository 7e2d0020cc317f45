from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.errors import SourceError
from emi_live.scoring.picture import has_picture, overlay, plot
from emi_models import EMOTIONS
from tests.live.scoring.scores import made_up


def grey_clip(path: Path, seconds: int = 5, *, picture: bool = True) -> Path:
    """Grey pictures, 10 a second, and silence."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=16_000)
        if picture:
            video = container.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
            for _ in range(10 * seconds):
                frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 128, np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16_000 * seconds), np.int16), layout="mono")
        block.rate = 16_000
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return path


@pytest.mark.slow
def test_a_plot_names_every_curve_and_has_the_words(tmp_path: Path) -> None:
    path = tmp_path / "clip.svg"
    plot(made_up(bands=True), path)
    drawn = path.read_text(encoding="utf-8")
    for text in (*(name.replace("_", " ") for name in EMOTIONS), "clip.mp4", "Ask not what.", "missing"):
        assert text in drawn
    plot(made_up(), tmp_path / "clip.png", title="a $strange title")
    assert (tmp_path / "clip.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_copy_has_every_frame_with_bars_as_long_as_the_values(tmp_path: Path) -> None:
    clip, path = grey_clip(tmp_path / "grey.mkv"), tmp_path / "grey.overlay.mp4"
    overlay(clip, made_up(), path)
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
        frames = {
            round(frame.time, 1): frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
        }
    assert len(frames) == 50
    np.testing.assert_allclose(frames[0.0], 128, atol=12)  # no estimate yet

    def yellow(picture: NDArray[np.uint8]) -> int:
        """Pixels of joy's colour."""
        red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
        return int(((red > 150) & (green > 140) & (blue < 90)).sum())

    assert yellow(frames[2.0]) == pytest.approx(3 * yellow(frames[0.6]), rel=0.25)  # .75 and .25
    assert frames[1.2][-40:, 100:220].min() < 60  # words
    assert frames[2.8][-40:, 100:220].min() > 100  # over for more than a second


@pytest.mark.slow
def test_sound_alone_has_nothing_to_draw_on(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "sound.mkv", 1, picture=False)
    assert not has_picture(clip)
    with pytest.raises(SourceError, match="picture"):
        overlay(clip, made_up(), tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
