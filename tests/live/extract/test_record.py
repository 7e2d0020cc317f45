"""Clips of every odd kind, through the real sources, rings and bus."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.bundle import Encoders, default_bundle
from emi_live.clock import NS_PER_S
from emi_live.config import AudioConfig, FaceConfig, LiveConfig
from emi_live.errors import ConfigurationError, SourceError, StageError
from emi_live.extract.recorder import FOREVER, ClipRecord, record_clip
from emi_live.flow import Flow
from emi_live.stages import Stage
from emi_live.stages.audio import ProsodyStage
from emi_live.stages.vision import FaceStage
from emi_models.encoders.face import FaceResult
from emi_models.encoders.prosody import ProsodyEncoder
from tests.live.extract.support import COMPACT_DIMS
from tests.live.stages.fakes import BrightnessFace, LoudnessGate

PICTURES = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10")
TONE = ("-f", "lavfi", "-i", "sine=frequency=220:sample_rate=16000")


def ffmpeg(*arguments: str | Path) -> None:
    command = ["ffmpeg", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


class Blinded(BrightnessFace):
    """A face encoder that breaks down at its third picture, and at each one after."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0

    def follow(self, wish: object) -> None:
        pass

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        self._seen += 1
        if self._seen > 2:
            raise RuntimeError("blinded")
        return super().analyse(rgb, t_ns)


def stages_with(face: BrightnessFace) -> Callable[[Flow], Sequence[Stage]]:
    def stages(flow: Flow) -> list[Stage]:
        health = flow.health
        return [
            FaceStage(flow.video.reader(), face, FaceConfig(), health),
            ProsodyStage(flow.audio.reader(), ProsodyEncoder(), LoudnessGate(), AudioConfig(), health),  # type: ignore[arg-type]
        ]

    return stages


def record(path: Path, until_ns: int = FOREVER, face: BrightnessFace | None = None) -> ClipRecord:
    made = record_clip(path, LiveConfig(), stages_with(face or BrightnessFace()), COMPACT_DIMS, until_ns)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("emi-")] == []
    return made


def test_of_a_long_clip_the_first_seconds_are_read_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "long.mkv"
    ffmpeg(*PICTURES, *TONE, "-t", "120", "-c:v", "mpeg4", "-c:a", "pcm_s16le", path)
    flows: list[Flow] = []

    def stages(flow: Flow) -> Sequence[Stage]:
        flows.append(flow)
        return stages_with(BrightnessFace())(flow)

    recording = record_clip(path, LiveConfig(), stages, COMPACT_DIMS, 12 * NS_PER_S).recording
    assert recording.duration_ns == 12 * NS_PER_S
    assert recording.pictures == len(recording.tracks["vision"].t_ns) == 121
    assert len(recording.tracks["audio"].t_ns) == 599
    assert recording.tracks["audio"].t_ns[-1] <= 12 * NS_PER_S
    assert flows[0].health.snapshot().counters["video.frames"] < 600  # of 1200


def test_stamps_count_and_not_the_frame_rate_that_a_file_claims(tmp_path: Path) -> None:
    path = tmp_path / "absurd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts = number * 50
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 1000
    times = record(path).recording.tracks["vision"].t_ns
    assert (times / 1e6).round().tolist() == [number * 50 for number in range(20)]


def test_a_clip_without_sound_and_one_without_pictures(tmp_path: Path) -> None:
    ffmpeg(*PICTURES, "-t", "2", "-c:v", "mpeg4", tmp_path / "mute.mp4")
    ffmpeg(*TONE, "-t", "2", tmp_path / "blind.wav")
    mute, blind = record(tmp_path / "mute.mp4").recording, record(tmp_path / "blind.wav").recording
    assert [len(mute.tracks[m].t_ns) for m in ("vision", "audio", "text")] == [20, 0, 0]
    assert [len(blind.tracks[m].t_ns) for m in ("vision", "audio", "text")] == [0, 99, 0]
    assert mute.tracks["audio"].values.shape == (0, 73)
    assert blind.pictures == 0
    assert blind.duration_ns == 2 * NS_PER_S


def test_the_shortest_sound_of_the_data_set_gives_its_two_frames(tmp_path: Path) -> None:
    ffmpeg(*TONE, "-t", "0.064", tmp_path / "short.wav")
    recording = record(tmp_path / "short.wav").recording
    assert recording.tracks["audio"].t_ns.tolist() == [25_000_000, 45_000_000]
    assert recording.duration_ns == 64_000_000


def test_a_clip_that_is_cut_off_is_refused_unless_what_is_wanted_is_there(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    ffmpeg(*PICTURES, *TONE, "-t", "10", "-c:v", "mpeg4", "-c:a", "pcm_s16le", whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SourceError, match="cut off"):
        record(cut)
    assert record(cut, 3 * NS_PER_S).recording.duration_ns == 3 * NS_PER_S


def test_what_is_no_media_file_is_refused(tmp_path: Path) -> None:
    empty, text, index = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "noindex.mp4"
    empty.touch()
    text.write_text("this is not a film\n" * 100, encoding="utf-8")
    ffmpeg(*PICTURES, "-t", "2", "-c:v", "mpeg4", index)
    index.write_bytes(index.read_bytes()[:-2000])  # an MP4's index comes last
    for path, why in ((empty, "empty"), (text, "not a media file|text file"), (index, "cut off")):
        with pytest.raises(SourceError, match=why):
            record(path)
    with pytest.raises(ConfigurationError, match="cannot be found"):
        record(tmp_path / "absent.mp4")


def test_a_stage_that_fails_is_told_and_leaves_nothing_running(tmp_path: Path) -> None:
    ffmpeg(*PICTURES, "-t", "3", "-c:v", "mpeg4", tmp_path / "clip.mp4")
    with pytest.raises(StageError, match="blinded"):
        record(tmp_path / "clip.mp4", face=Blinded())
    record(tmp_path / "clip.mp4")


def test_a_clip_of_which_nothing_is_wanted_is_refused(tmp_path: Path) -> None:
    ffmpeg(*TONE, "-t", "1", tmp_path / "blind.wav")
    with pytest.raises(SourceError, match="nothing to analyse"):
        record_clip(
            tmp_path / "blind.wav",
            LiveConfig(),
            lambda flow: default_bundle().stages(Encoders(), flow),
            COMPACT_DIMS,
        )


def test_the_sound_track_of_the_settings_is_the_one_that_is_recorded(tmp_path: Path) -> None:
    clip = tmp_path / "two.mkv"
    silence = ("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono")
    ffmpeg(*TONE, *silence, "-map", "0:a", "-map", "1:a", "-t", "1", "-c:a", "pcm_s16le", clip)
    faces = stages_with(BrightnessFace())

    def frames(track: str) -> NDArray[np.float32]:
        config = LiveConfig.model_validate({"source": {"audio_track": track}})
        record = record_clip(clip, config, lambda flow: list(faces(flow))[1:], COMPACT_DIMS)
        return record.recording.tracks["audio"].values

    assert not np.array_equal(frames("1"), frames("2"))
    with pytest.raises(ConfigurationError, match="track"):
        frames("3")
