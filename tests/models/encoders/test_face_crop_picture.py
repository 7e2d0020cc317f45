from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from emi_models.encoders.vit import UnreadablePictureError, read_face
from emi_models.errors import EmiError


def write_jpeg(path: Path, rgb: tuple[int, int, int], height: int = 64, width: int = 48) -> None:
    picture = np.full((height, width, 3), rgb, np.uint8)
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=Fraction(1))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"  # full range, as JPEG has it
        for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")):
            container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.parametrize("rgb", [(250, 20, 30), (10, 200, 60), (128, 128, 128)])
def test_a_crop_is_read_in_rgb(tmp_path: Path, rgb: tuple[int, int, int]) -> None:
    write_jpeg(tmp_path / "0.jpg", rgb)
    picture = read_face(tmp_path / "0.jpg")
    assert picture.shape == (64, 48, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture.reshape(-1, 3).mean(axis=0), rgb, atol=12)


def test_a_real_photograph_is_read(assets: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="the comparison needs Pillow")
    path = assets / "face" / "pyfeat_single_face.jpg"
    picture = read_face(path)
    with image.open(path) as opened:
        wanted = np.asarray(opened.convert("RGB")).astype(int)
    assert picture.shape == wanted.shape
    assert np.abs(picture - wanted).mean() < 2  # decoders differ in how they spread colour


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0" + bytes(40)])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "7.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadablePictureError, match=r"7\.jpg") as caught:
        read_face(path)
    assert isinstance(caught.value, EmiError)
    assert "\n" not in str(caught.value)
