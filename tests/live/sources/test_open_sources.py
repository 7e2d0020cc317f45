"""From the configuration to sources: what is opened, what is refused, what is given back."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from emi_live.clock import MonotonicClock
from emi_live.config import LiveConfig, load_config
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.sources import Source, open_sources
from emi_live.sources.file import FileSource
from tests.support.pulse import PulseServer
from tests.support.stream import StreamServer
from tests.support.webcam import web_camera


def configure(**source: object) -> LiveConfig:
    mode = source.pop("mode", "auto")
    return load_config(overrides={"mode": mode, "source": source, "camera": {"open_timeout_s": 2.0}})


def opened(config: LiveConfig, health: Health | None = None) -> list[Source]:
    sources = open_sources(config, MonotonicClock(), health or Health())
    for source in sources:
        source.close()
    return sources


def test_nothing_asked_for_means_pushed_media() -> None:
    [both], [frames] = opened(configure()), opened(configure(mic="none"))
    assert (both.name, both.has_video, both.has_audio) == ("push", True, True)
    assert (frames.name, frames.has_video, frames.has_audio) == ("push", True, False)


def test_a_file_brings_its_own_sound(assets: Path) -> None:
    (source,) = opened(configure(input=assets / "av/face_and_speech.mp4"))
    assert isinstance(source, FileSource)
    assert source.has_audio


def test_a_file_without_sound_by_wish(assets: Path) -> None:
    (source,) = opened(configure(input=assets / "av/face_and_speech.mp4", mic="none"))
    assert not source.has_audio


def test_contradictions_are_bad_use(assets: Path) -> None:
    with pytest.raises(ConfigurationError, match="exclude"):
        opened(configure(camera=0, input=assets / "av/face_and_speech.mp4"))
    with pytest.raises(ConfigurationError, match="replayed"):
        opened(configure(input=assets / "av/face_and_speech.mp4", mic="default"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"camera": "rtsp:/me:secret@h/x"}, "slash.*rtsp://…@h/x"),
        ({"input": "http://me:secret@h/x.mp4"}, "http://…@h/x.mp4.*curl"),
        ({"input": Path("http://me:secret@h/x.mp4")}, "http://…@h/x.mp4"),
    ],
)
def test_a_misplaced_or_misspelt_address_is_bad_use(source: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        configure(**source)
    assert "secret" not in str(caught.value)


def test_none_and_default_are_words_in_any_case() -> None:
    assert configure(camera=0, mic="None").source.mic == "none"
    assert configure(mic="DEFAULT").source.mic == "default"
    assert configure(mic="Jabra None").source.mic == "Jabra None"


def test_a_recording_is_watched_without_the_microphone_of_the_room(
    tmp_path: Path, pulse: PulseServer, caplog: pytest.LogCaptureFixture
) -> None:
    clip = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=96x64:rate=10:duration=1", "clip.mp4"]
    subprocess.run(clip, check=True, cwd=tmp_path)
    with web_camera(folder=tmp_path) as server:
        assert [source.name for source in opened(configure(camera=server.url("clip.mp4")))] == ["camera"]
        assert "save it and use --input FILE" in caplog.text
        both = opened(configure(camera=server.url("clip.mp4"), mic="default"))
        assert [source.name for source in both] == ["camera", "microphone"]


def test_a_camera_and_a_microphone(face_stream: StreamServer, pulse: PulseServer) -> None:
    sources = opened(configure(camera=face_stream.url))
    assert [source.name for source in sources] == ["camera", "microphone"]


def test_a_microphone_nobody_named_may_be_absent(
    face_stream: StreamServer,
    pulse: PulseServer,
) -> None:
    pulse.stop()
    health = Health()
    assert [source.name for source in opened(configure(camera=face_stream.url), health)] == ["camera"]
    assert health.status("microphone").state == "failed"
    assert health.status("microphone").detail


def test_a_camera_is_given_back_when_the_named_microphone_is_absent(
    face_stream: StreamServer,
    pulse: PulseServer,
) -> None:

    before = threading.active_count()
    with pytest.raises(SourceError, match="microphone 'nosuch'"):
        opened(configure(camera=face_stream.url, mic="nosuch"))
    assert threading.active_count() == before
