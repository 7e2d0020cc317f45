"""`emi extract --data --encoder`: a data set's own media to a folder of features that training reads."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.extract import app
from emi_models.data.encode import read_sound
from emi_models.data.vidmimic import VidmimicClips
from emi_models.encoders.hub import HubEncoder
from tests.models.data.folders import make_vidmimic
from tests.models.encoders.test_hub import tiny

RATE = 16_000


def write_picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 40, 48, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def write_sound(path: Path, seconds: float, rate: int = 44_100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="stereo")
        samples = np.repeat((wave * 32767).astype(np.int16)[:, None], 2, axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips with media: the second lacks picture 1, the third has no words; one test clip."""
    folder = make_vidmimic(tmp_path / "data")
    for clip in range(3):
        for number in (0, 1, 2):
            if (clip, number) != (1, 1):
                write_picture(folder / "face_images" / f"{clip:05}" / f"{number}.png", 10 * clip + number)
        write_sound(folder / "audio" / f"{clip:05}.wav", 0.5 + clip / 4)
        (folder / "text").mkdir(exist_ok=True)
        (folder / "text" / f"{clip:05}.txt").write_text("so proud" if clip < 2 else " ")
    (folder / "face_images" / "00000" / "Thumbs.db").write_text("x")
    write_picture(folder / "test_data" / "face_images" / "00003" / "0.png", 30)
    return folder


def encode(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, [*map(str, args), "--device", "cpu"], "emi extract")
    return ended.value.code, *capsys.readouterr()


def test_faces_of_the_data_set(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = tiny("dinov2", tmp_path / "model")
    command = ("--data", folder, "--encoder", model, "--name", "dinov2")
    code, said, _ = encode(capsys, *command)
    assert (code, said.startswith(f"4 clips in {folder}/dinov2 (4 now, 0 before)")) == (0, True)
    clips = VidmimicClips(folder, vision="dinov2")
    assert clips.ids("test") == ("00003",)
    track = clips.load("00001").vision
    assert track.t_ns.tolist() == [0, round(2e9 / 6)]  # picture 1 is missing, and the others keep their times
    assert track.values.shape == (2, HubEncoder(model).dim)
    code, said, _ = encode(capsys, *command)
    assert (code, "(0 now, 4 before)" in said) == (0, True)
    made_by = json.loads((folder / "dinov2" / "encoder.json").read_text())
    assert made_by["encoder"] == HubEncoder(model).encoder_id
    code, _, told = encode(capsys, *command, "--pooling", "mean")
    assert (code, "name another folder" in told) == (2, True)


def test_voices_and_words(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice, _ = tiny("wav2vec2", tmp_path / "voice")
    words, _ = tiny("bert", tmp_path / "words")
    (folder / "audio" / "00002.wav").write_bytes(b"RIFF nothing")
    code, said, told = encode(capsys, "--data", folder, "--encoder", voice)
    assert (code, "2 clips in" in said, "00002" in told) == (0, True, True)
    code, said, _ = encode(capsys, "--data", folder, "--encoder", words, "--pooling", "mean", "--batch", 1)
    assert (code, "1 without text" in said) == (0, True)
    clips = VidmimicClips(folder, vision="none", audio="voice", text="words")
    assert len(clips.load("00001").audio.t_ns) == 37  # 0.75 s
    assert clips.load("00000").text.values.shape == (1, 32)
    assert clips.load("00002").text.values.shape == (0, 32)


def test_sound_is_one_channel_of_16_khz(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", 1.0)
    sound = read_sound(tmp_path / "a.wav")
    assert sound.dtype == np.float32
    assert sound.ndim == 1
    assert abs(len(sound) - RATE) <= 32
    spectrum = np.abs(np.fft.rfft(sound[:RATE]))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert 0.25 <= np.abs(sound[RATE // 4 : -RATE // 4]).max() <= 0.35


def test_bad_use_is_one_line_and_exit_code_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = tiny("vit", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    for args, message in (
        (("--encoder", model), "--data"),
        (("--data", folder, "--encoder", "nowhere"), "nowhere"),
        (("--data", folder, "--encoder", tmp_path / "empty"), "config.json"),
        (("--data", folder, "--encoder", model, "--source", "frames"), "--source"),
        (("--data", folder, "--encoder", model, "--pooling", "max"), "--pooling"),
        (("--data", folder, "--encoder", model, "--name", "../x"), "--name"),
        (("--data", folder, "--encoder", model, "--cluster", "auto"), "--cluster"),
        (("--data", folder, "--encoder", model, "--workers", 2), "--workers"),
        (("--data", folder, "--encoder", model, "--name", "vit"), "another folder"),
        ((), "--videos"),
    ):
        code, said, told = encode(capsys, *args)
        assert (code, said) == (2, ""), args
        assert message in told.splitlines()[-1]
