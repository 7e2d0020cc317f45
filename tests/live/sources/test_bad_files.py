"""Files that lie, are damaged or odd: what can be had of them is had, and the rest is said and counted."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError, PartialSourceError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import MAX_SIDE_PX, AudioRing, VideoRing
from emi_live.sources.file import FileSource
from tests.live.sources.fakes import RecordingIntake, Stop
from tests.live.sources.test_file import ffmpeg, play, seconds_of_sound
from tests.support.fakes import FakeClock


@pytest.fixture
def faults(assets: Path) -> Path:
    return assets / "faults"


def counters(path: Path) -> dict[str, int]:
    health = Health()
    play(path, health)
    return health.snapshot().counters


def frame_times(intake: RecordingIntake) -> Sequence[float]:
    return [t_ns / NS_PER_S for _, t_ns in intake.frames]


def sound_times(intake: RecordingIntake) -> Sequence[float]:
    return [t_ns / NS_PER_S for _, t_ns, _ in intake.sound]


@pytest.mark.parametrize("name", ["concatenated.ts", "jump_1h.ts"])
def test_time_goes_on_where_stamps_start_again_or_jump(faults: Path, name: str) -> None:
    health = Health()
    intake = play(faults / name, health)
    assert health.snapshot().counters["file.discontinuities"] == 1
    assert len(intake.frames) == 180
    for times, step_s in ((frame_times(intake), 1 / 30), (sound_times(intake), 1024 / 44_100)):
        steps = np.diff(times)
        assert steps.min() > 0
        assert steps.max() < step_s + 0.05  # the streams do not end together
    assert seconds_of_sound(intake) == pytest.approx(6.08, abs=0.05)
    assert health.status("file").detail == ""  # it is not cut off


def test_live_mode_does_not_wait_out_a_jump(faults: Path) -> None:
    clock = FakeClock()
    FileSource(faults / "jump_1h.ts", Health(), pace=clock).run(RecordingIntake(), Stop(clock))
    assert clock.now_ns() < 7 * NS_PER_S


def test_one_stamp_far_ahead_loses_no_frame_after_it(faults: Path) -> None:
    health = Health()
    intake = play(faults / "one_bogus_pts.mkv", health)
    assert health.snapshot().counters["file.refused_stamps"] == 1
    assert len(intake.frames) == 90
    assert max(frame_times(intake)) < 3.1


@pytest.mark.parametrize(
    ("name", "first_sound_s", "last_s"), [("late_audio_70s.mkv", 69.98, 75), ("muted_80s.webm", 0.0, 95)]
)
def test_a_long_pause_of_one_stream_stays(
    faults: Path, name: str, first_sound_s: float, last_s: float
) -> None:
    intake = play(faults / name)
    assert sound_times(intake)[0] == pytest.approx(first_sound_s, abs=0.02)
    assert frame_times(intake)[-1] == pytest.approx(last_s, abs=0.1)
    assert max(np.diff([0.0, *sound_times(intake)])) > 69


def test_a_recording_that_kept_its_clock_is_not_cut_off(faults: Path) -> None:
    health = Health()
    source = FileSource(faults / "start_1000s.mkv", health)
    assert source.duration_s == pytest.approx(3.0, abs=0.1)
    source.run(RecordingIntake(), threading.Event())
    assert health.status("file").detail == ""


@pytest.mark.parametrize(("name", "part"), [("clip.ts", 0.6), ("clip.avi", 0.6)])
def test_a_file_shorter_than_it_says_may_be_cut_off(
    assets: Path, tmp_path: Path, name: str, part: float
) -> None:
    whole, cut = tmp_path / name, tmp_path / f"cut_{name}"
    codecs = ("-c:v", "mpeg2video", "-c:a", "mp2")
    ffmpeg("-i", assets / "av/face_and_speech.mp4", "-t", "2", *codecs, whole)
    assert FileSource(whole, Health()).description
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * part) // 188 * 188 + 100])
    health = Health()
    play(cut, health)
    assert "cut off" in health.status("file").detail
    play(whole, health)
    assert health.status("file").detail == ""


def test_sound_of_more_than_eight_channels_is_mixed_down(faults: Path, tmp_path: Path) -> None:
    assert seconds_of_sound(play(faults / "channels_16.wav")) == pytest.approx(0.5)
    path = tmp_path / "planar.mkv"  # decoded into sixteen planes
    tone = "sine=440:duration=0.3,pan=16c|" + "|".join(f"c{number}=c0" for number in range(16))
    ffmpeg("-f", "lavfi", "-i", tone, "-c:a", "libopus", "-mapping_family", "255", path)
    pcm = np.concatenate([pcm for pcm, _, _ in play(path).sound])
    assert seconds_of_sound(play(path)) == pytest.approx(0.3, abs=0.01)
    assert 0.05 < np.abs(pcm.mean(axis=1)).max() <= 1


@pytest.mark.parametrize("name", ["width_32768.mkv", "sar_52.mp4"])
def test_no_frame_is_too_large_for_native_code(faults: Path, name: str) -> None:
    source = FileSource(faults / name, Health())
    assert len(source.announcements) == 1
    intake = RecordingIntake()
    source.run(intake, threading.Event())
    assert len(intake.frames) == 10
    assert max(intake.frames[0][0].shape) <= MAX_SIDE_PX


def test_a_frame_that_needs_gigabytes_is_not_decoded(tmp_path: Path) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return len(content).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)

    width, height = 20_000, 16_000
    header = width.to_bytes(4) + height.to_bytes(4) + bytes((1, 0, 0, 0, 0))  # one bit a pixel
    pixels = zlib.compress(bytes((width // 8 + 1) * height), 1)
    path = tmp_path / "huge.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    with pytest.raises(SourceError, match="decoded"):
        FileSource(path, Health())


def test_a_pushed_frame_that_large_is_refused() -> None:
    intake = Intake(VideoRing(2), AudioRing(1.0), Health())
    with pytest.raises(ConfigurationError, match="too large"):
        intake.push_frame(np.zeros((2, 32_767, 3), np.uint8), 0)


def test_a_rate_near_16_khz_is_heard(faults: Path) -> None:
    assert seconds_of_sound(play(faults / "rate_16001.wav")) == pytest.approx(2.74, abs=0.02)
    ring = AudioRing(5.0)
    intake, reader = Intake(VideoRing(2), ring, Health()), ring.reader()
    for rate_hz in (15_999, 16_001, 16_003, 44_101):
        intake.push_audio(np.ones(rate_hz // 10, np.float32), 0, rate_hz)
        intake.push_audio(np.ones(rate_hz // 10, np.float32), NS_PER_S // 10, rate_hz)
        assert sum(block.samples.size for block in iter(lambda: reader.read(99_999), None)) > 2_900


@pytest.mark.parametrize(
    ("name", "reason"),
    [("rate_500.wav", "500 Hz"), ("rgb4.nut", "rgb4")],
)
def test_what_cannot_be_used_is_refused_with_the_reason(faults: Path, name: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason) as caught:
        FileSource(faults / name, Health())
    assert caught.value.exit_code == 3


def test_a_stream_that_appears_later_ends_no_other(faults: Path) -> None:
    health = Health()
    intake = play(faults / "damaged_new_stream.ts", health)
    assert health.snapshot().counters["file.damaged"] >= 1
    assert len(intake.frames) > 170
    assert sound_times(intake)[-1] > 5.9


def test_a_stream_that_breaks_down_says_how_far_it_was_read(faults: Path) -> None:
    health, intake = Health(), RecordingIntake()
    source = FileSource(faults / "mutated_segfault.mp4", health)
    with pytest.raises(PartialSourceError, match=r"of 2\.1 s") as caught:
        source.run(intake, threading.Event())
    assert caught.value.exit_code == 1
    assert len(intake.frames) > 30
    assert health.status("file").state == "ended"
    assert "could be read to" in health.status("file").detail


# (x, y) of the corner to which the display matrix takes the top left one is what each of these differs in.
MATRICES = {
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "half turn": (-1, 0, 0, -1),
    "quarter turn": (0, 1, -1, 0),
    "three quarters": (0, -1, 1, 0),
    "transpose": (0, 1, 1, 0),
    "anti-transpose": (0, -1, -1, 0),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())
def test_a_display_matrix_is_shown_as_ffmpeg_shows_it(
    assets: Path, tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    plain, turned, shown = tmp_path / "plain.mp4", tmp_path / "turned.mp4", tmp_path / "shown.png"
    ffmpeg("-i", assets / "av/face_and_speech.mp4", "-frames:v", "2", "-an", "-c:v", "mpeg4", plain)
    data = plain.read_bytes()
    place = data.index(b"tkhd") + 44  # of its nine numbers; FFmpeg's tools write rotations only
    assert data[place : place + 4] == (1 << 16).to_bytes(4)
    a, b, c, d = (value << 16 for value in matrix)
    numbers = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    written = b"".join(number.to_bytes(4, signed=True) for number in numbers)
    turned.write_bytes(data[:place] + written + data[place + 36 :])
    ffmpeg("-i", turned, "-frames:v", "1", shown)
    np.testing.assert_array_equal(play(turned).frames[0][0], play(shown).frames[0][0])


def test_the_default_track_is_heard_and_another_can_be_chosen(faults: Path, tmp_path: Path) -> None:
    path = faults / "default_track_second.mkv"
    chosen = FileSource(path, Health())
    assert "44100 Hz" in chosen.description
    assert [line for line in chosen.announcements if "track 2" in line and "--audio-track" in line]
    assert "48000 Hz" in FileSource(path, Health(), audio_track=1).description
    with pytest.raises(ConfigurationError, match="audio track 3"):
        FileSource(path, Health(), audio_track="3")
    named = tmp_path / "named.mkv"
    languages = ("-metadata:s:a:0", "language=ger", "-metadata:s:a:1", "language=eng")
    ffmpeg("-i", path, "-map", "0", "-c", "copy", *languages, named)
    assert "48000 Hz" in FileSource(named, Health(), audio_track="de").description
    assert "44100 Hz" in FileSource(named, Health(), audio_track="eng").description
    with pytest.raises(ConfigurationError, match="video track fr"):
        FileSource(named, Health(), video_track="fr")


def test_a_title_and_a_language_that_are_not_utf8_do_no_harm(faults: Path, tmp_path: Path) -> None:
    path = tmp_path / "latin.mkv"
    texts = ("-metadata", "title=Gross", "-metadata:s:a:0", "language=ger")
    ffmpeg("-i", faults / "default_track_second.mkv", "-map", "0", "-c", "copy", *texts, path)
    path.write_bytes(path.read_bytes().replace(b"Gross", b"Gr\xf6ss").replace(b"ger", b"g\xe4r"))
    source = FileSource(path, Health(), audio_track=1)
    shown = " ".join((source.description, *source.announcements))
    assert "48000 Hz" in shown
    assert shown.encode("utf-8")


def test_an_empty_track_is_passed_over(faults: Path) -> None:
    source = FileSource(faults / "empty_first_audio.mkv", Health())
    assert source.has_audio
    assert any("audio track 1 cannot be used" in line and "empty" in line for line in source.announcements)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.ffconcat", "ffconcat version 1.0\nfile /etc/motd\n", "ffmpeg -f concat"),
        ("keys.m3u8", '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:1,\na.ts\n', "encrypted"),
        ("stream.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "SDP"),
    ],
)
def test_lists_and_descriptions_of_media_are_named(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=message) as caught:
        FileSource(path, Health())
    assert "\n" not in str(caught.value)
