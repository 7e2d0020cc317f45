"""Files of every kind on one timeline, and one plain line for each that cannot be used."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError, LiveError, PartialSourceError, SourceError
from emi_live.health import Health
from emi_live.sources.file import FileSource
from tests.live.sources.fakes import RecordingIntake, Stop
from tests.support.fakes import FakeClock


def ffmpeg(*arguments: str | Path) -> None:
    command = ["ffmpeg", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def play(path: Path, health: Health | None = None) -> RecordingIntake:
    health = health or Health()
    intake = RecordingIntake(health)
    FileSource(path, health).run(intake, threading.Event())
    assert health.status("file").state == "ended"
    assert {"end_video", "end_audio"} <= set(intake.events)
    return intake


def seconds_of_sound(intake: RecordingIntake) -> float:
    return sum(len(pcm) / rate_hz for pcm, _, rate_hz in intake.sound)


def test_video_and_sound_of_one_file_are_on_one_timeline(assets: Path) -> None:
    source = FileSource(assets / "av/face_and_speech.mp4", Health())
    assert source.has_video
    assert source.has_audio
    assert source.duration_s == pytest.approx(11.0)
    assert source.description == "face_and_speech.mp4: h264 640x360, aac 44100 Hz stereo, 11.0 s"
    intake = RecordingIntake()
    source.run(intake, threading.Event())
    assert len(intake.frames) == 330
    assert intake.frames[0][0].shape == (360, 640, 3)
    times = [t_ns for _, t_ns in intake.frames]
    assert times[0] == 0
    np.testing.assert_allclose(np.diff(times), NS_PER_S / 30, atol=1e6)
    assert seconds_of_sound(intake) == pytest.approx(11.0, abs=0.05)
    # Neither runs ahead of the other: what arrives is in order of the time at which it would have been
    # captured.
    assert intake.events.index("sound") < 3
    first_hundred = intake.events[:100]
    assert 35 <= first_hundred.count("frame") <= 45


@pytest.mark.parametrize(
    ("name", "frames", "sound_s", "first_sound_s"),
    [
        ("av/face_lost_4s_to_8s_speech_throughout.mp4", 330, 11.0, 0.0),
        ("av/face_throughout_speech_stops_at_5s.mp4", 390, 13.0, 0.0),
        ("av/face_slides_out_after_2s.mp4", 240, 0.0, 0.0),
        ("face/pyfeat_face_noface.mov", 169, 3.96, 2.43),
        ("face/pyfeat_no_face.mp4", 95, 3.96, 0.0),
        ("face/pyfeat_single_face.mp4", 72, 2.42, 0.0),
        ("face/pyfeat_single_face.jpg", 1, 0.0, 0.0),
        ("face/intel_head-pose-face-detection-female.gif", 23, 0.0, 0.0),
        ("face/intel_face-demographics-walking-and-pause.gif", 41, 0.0, 0.0),
        ("face/intel_please.mkv", 73, 0.0, 0.0),
        ("face/intel_sorry.mkv", 73, 0.0, 0.0),
        ("speech/jfk.flac", 0, 11.0, 0.0),
        ("speech/LJ001-0002.wav", 0, 1.9, 0.0),
        ("speech/stereo_diarization.wav", 0, 5.0, 0.0),
        ("speech/silero_test_16k.wav", 0, 60.0, 0.0),
    ],
)
def test_every_kind_of_file(
    assets: Path, name: str, frames: int, sound_s: float, first_sound_s: float
) -> None:
    intake = play(assets / name)
    assert len(intake.frames) == frames
    assert seconds_of_sound(intake) == pytest.approx(sound_s, abs=0.05)
    if frames:
        assert intake.frames[0][1] == 0
    if sound_s:
        assert intake.sound[0][1] / 1e9 == pytest.approx(first_sound_s, abs=0.01)


def test_each_stream_ends_where_its_own_media_end(assets: Path, tmp_path: Path) -> None:
    clip = tmp_path / "short_sound.mkv"
    source = assets / "av/face_and_speech.mp4"
    ffmpeg("-t", "3", "-i", source, "-t", "1", "-i", source, "-map", "0:v", "-map", "1:a", "-c", "copy", clip)
    intake = play(clip)
    assert 25 <= intake.events[: intake.events.index("end_audio")].count("frame") <= 35
    assert len(intake.frames) >= 88


def test_sound_alone_ends_the_frames_at_once(assets: Path) -> None:
    assert play(assets / "speech/LJ001-0002.wav").events[0] == "end_video"


def test_frames_alone_end_the_sound_at_once(assets: Path) -> None:
    assert play(assets / "face/intel_please.mkv").events[0] == "end_audio"


def test_the_sound_can_be_left_to_a_microphone(assets: Path) -> None:
    source = FileSource(assets / "av/face_and_speech.mp4", Health(), audio=False)
    assert not source.has_audio
    intake = RecordingIntake()
    source.run(intake, threading.Event())
    assert intake.sound == []
    assert "end_audio" not in intake.events


def test_surround_sound_keeps_its_centre(assets: Path, tmp_path: Path) -> None:
    speech, surround, mono = assets / "speech/jfk.flac", tmp_path / "surround.wav", tmp_path / "mono.wav"
    ffmpeg("-i", speech, "-t", "2", "-af", "pan=5.1|FC=c0", surround)
    ffmpeg("-i", speech, "-t", "2", "-af", "pan=mono|c0=c0", mono)
    folded = np.concatenate([pcm for pcm, _, _ in play(surround).sound])
    single = np.concatenate([pcm for pcm, _, _ in play(mono).sound])
    assert folded.shape == (single.shape[0], 2)
    np.testing.assert_allclose(folded[:, 0], single[:, 0] * np.sqrt(0.5), atol=1e-4)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_every_sample_format_comes_at_the_same_level(assets: Path, tmp_path: Path, codec: str) -> None:
    path = tmp_path / "speech.wav"
    ffmpeg("-i", assets / "speech/LJ001-0002.wav", "-c:a", codec, path)
    pcm = np.concatenate([pcm for pcm, _, _ in play(path).sound])
    assert pcm.dtype == np.float32
    reference = np.concatenate([pcm for pcm, _, _ in play(assets / "speech/LJ001-0002.wav").sound])
    np.testing.assert_allclose(pcm, reference, atol=0.01 if codec == "pcm_u8" else 1e-4)


def test_telephone_sound(assets: Path, tmp_path: Path) -> None:
    path = tmp_path / "telephone.wav"
    ffmpeg("-i", assets / "speech/LJ001-0002.wav", "-ar", "8000", "-ac", "1", path)
    intake = play(path)
    assert {rate_hz for _, _, rate_hz in intake.sound} == {8_000}
    assert seconds_of_sound(intake) == pytest.approx(1.9, abs=0.01)


@pytest.mark.parametrize(("angle", "shape"), [("90", (640, 360)), ("180", (360, 640)), ("270", (640, 360))])
def test_a_rotated_recording_is_turned_upright(
    assets: Path, tmp_path: Path, angle: str, shape: tuple[int, int]
) -> None:
    clip, rotated, shown = assets / "av/face_and_speech.mp4", tmp_path / "phone.mp4", tmp_path / "shown.png"
    ffmpeg("-i", clip, "-t", "0.2", "-an", "-c", "copy", "-metadata:s:v:0", f"rotate={angle}", rotated)
    ffmpeg("-i", rotated, "-frames:v", "1", shown)  # ffmpeg turns it by itself
    upright = play(rotated).frames[0][0]
    assert upright.shape == (*shape, 3)
    np.testing.assert_array_equal(upright, play(shown).frames[0][0])


def test_frames_of_unequal_length_keep_their_times(assets: Path, tmp_path: Path) -> None:
    clip = tmp_path / "variable.mkv"
    ffmpeg(
        *("-i", assets / "av/face_and_speech.mp4", "-t", "4", "-an", "-fps_mode", "vfr"),
        *("-vf", "select='lt(n,20)+not(mod(n,5))'", clip),
    )
    times = np.array([t_ns for _, t_ns in play(clip).frames]) / 1e9
    steps = np.diff(times)
    assert steps[5] == pytest.approx(1 / 30, abs=2e-3)
    assert steps[-2] == pytest.approx(5 / 30, abs=2e-3)


def test_pixels_that_are_not_square_are_made_so(assets: Path, tmp_path: Path) -> None:
    clip = tmp_path / "anamorphic.mp4"
    ffmpeg("-i", assets / "av/face_and_speech.mp4", "-t", "0.1", "-an", "-vf", "scale=320:360,setsar=2", clip)
    assert play(clip).frames[0][0].shape == (360, 640, 3)


def test_one_frame_is_a_video(assets: Path, tmp_path: Path) -> None:
    clip = tmp_path / "one.mp4"
    ffmpeg("-i", assets / "av/face_and_speech.mp4", "-frames:v", "1", "-an", clip)
    assert len(play(clip).frames) == 1


def test_cover_art_is_not_a_video(assets: Path, tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    ffmpeg(
        *("-i", assets / "speech/LJ001-0002.wav", "-i", assets / "face/pyfeat_single_face.jpg"),
        *("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic", song),
    )
    source = FileSource(song, Health())
    assert source.has_audio
    assert not source.has_video
    source.close()


def test_damaged_packets_are_skipped_and_counted(assets: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    ffmpeg("-i", assets / "av/face_and_speech.mp4", "-c", "copy", "-movflags", "faststart", whole)
    data = bytearray(whole.read_bytes())
    for place in range(100_000, len(data) - 1_000, 15_000):
        data[place : place + 200] = bytes(200)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    health = Health()
    intake = play(damaged, health)
    assert health.snapshot().counters["file.damaged"] >= 1
    assert len(intake.frames) >= 300
    assert seconds_of_sound(intake) > 10


def test_a_file_cut_off_after_its_index_says_so(assets: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    ffmpeg("-i", assets / "av/face_and_speech.mp4", "-c", "copy", "-movflags", "faststart", whole)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:200_000])
    health, intake = Health(), RecordingIntake()
    with pytest.raises(PartialSourceError, match=r"of 11\.0 s"):
        FileSource(cut, health).run(intake, threading.Event())
    assert 100 <= len(intake.frames) <= 150
    assert "the rest is not in the file" in health.status("file").detail


@pytest.mark.slow
def test_a_trimmed_recording_and_a_last_long_frame_are_not_cut_off(assets: Path, tmp_path: Path) -> None:
    health, trimmed = Health(), tmp_path / "trimmed.mp4"
    ffmpeg("-ss", "4.3", "-i", assets / "av/face_and_speech.mp4", "-t", "4", "-c", "copy", trimmed)
    for clip in (trimmed, assets / "faults/slideshow_100s.mp4"):
        play(clip, health)
        assert health.status("file").detail == ""


def test_a_name_with_a_colon_is_not_a_url(assets: Path, tmp_path: Path) -> None:
    path = tmp_path / "http:we.ird%03d.wav"
    path.write_bytes((assets / "speech/LJ001-0002.wav").read_bytes())
    assert seconds_of_sound(play(path)) == pytest.approx(1.9, abs=0.01)


def test_bad_paths_are_bad_use(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "folder"),
        (tmp_path / "absent.mp4", "cannot be found"),
        (tmp_path / "absent" / "clip.mp4", "cannot be found"),
        (Path("/dev/null"), "not a file"),
        (Path("-"), "pipe"),
    ):
        with pytest.raises(ConfigurationError, match=message) as caught:
            FileSource(path, Health())
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "empty"),
        ("text.mp4", b"Dear diary, today I laughed a lot.\n" * 40, "not a media file"),
        ("text.txt", b"Dear diary, today I laughed a lot.\n" * 40, "text file"),
        ("noise.mkv", bytes(range(256)) * 40, "not a media file"),
        (
            "list.m3u8",
            b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n",
            "playlist",
        ),
        ("words.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n", "no video or sound"),
    ],
)
def test_a_file_without_media_is_no_source(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        FileSource(path, Health())
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_an_mp4_without_its_index_is_named(assets: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes((assets / "av/face_and_speech.mp4").read_bytes()[:200_000])
    with pytest.raises(LiveError, match="index"):
        FileSource(path, Health())


def test_real_pace_stamps_by_the_clock_and_waits(assets: Path) -> None:
    clock, start_ns = FakeClock(1_000 * NS_PER_S), 1_000 * NS_PER_S
    stop, intake = Stop(clock), RecordingIntake()
    FileSource(assets / "face/pyfeat_single_face.mp4", Health(), pace=clock).run(intake, stop)
    assert intake.frames[0][1] == start_ns
    assert intake.frames[-1][1] == pytest.approx(start_ns + 2.367 * NS_PER_S, abs=0.01 * NS_PER_S)
    assert clock.now_ns() - start_ns == pytest.approx(2.42 * NS_PER_S, abs=0.03 * NS_PER_S)
    assert max(stop.waits_s) <= 0.1


def test_frames_too_late_at_real_pace_are_left_out(assets: Path) -> None:
    class SlowIntake(RecordingIntake):
        def push_frame(self, rgb: object, t_ns: int, *, given_up: bool = False) -> None:
            super().push_frame(rgb, t_ns, given_up=given_up)  # type: ignore[arg-type] # as the base takes it
            clock.advance(NS_PER_S)

    clock, health = FakeClock(), Health()
    intake = SlowIntake(health)
    FileSource(assets / "face/pyfeat_single_face.mp4", health, pace=clock).run(intake, Stop(clock))
    assert len(intake.frames) + health.snapshot().counters["file.late"] == 72
    assert len(intake.frames) <= 5
    assert seconds_of_sound(intake) == pytest.approx(2.42, abs=0.05)


def test_two_exact_runs_are_identical(assets: Path) -> None:
    first, second = (play(assets / "av/face_and_speech.mp4") for _ in range(2))
    assert first.events == second.events
    for (rgb, t_ns), (rgb_again, t_again_ns) in zip(first.frames, second.frames, strict=True):
        assert t_ns == t_again_ns
        np.testing.assert_array_equal(rgb, rgb_again)
    for (pcm, t_ns, _), (pcm_again, t_again_ns, _) in zip(first.sound, second.sound, strict=True):
        assert t_ns == t_again_ns
        np.testing.assert_array_equal(pcm, pcm_again)


def test_an_origin_moves_all_stamps(assets: Path) -> None:
    intake = RecordingIntake()
    FileSource(assets / "face/pyfeat_single_face.mp4", Health(), origin_ns=77).run(intake, threading.Event())
    assert intake.frames[0][1] == 77
    assert intake.sound[0][1] == pytest.approx(77, abs=1e6)
