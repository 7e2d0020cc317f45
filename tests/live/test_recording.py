"""Recorded sessions: events come back as they were, also from a file that was cut off; a replay is exact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from emi_live import Estimate, LiveEngine, load_config
from emi_live.config import LiveConfig
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError, LiveError, SourceError
from emi_live.fusion_loop import Event, Hop
from emi_live.health import Health
from emi_live.messages import AudioPacket, Mark, Packet, TextPacket, VisionPacket
from emi_live.recording import About, Recording, SessionRecorder
from emi_live.sinks.viewstate import losses
from emi_live.window import Condition
from emi_live.worker import Worker
from emi_models import EMOTIONS
from emi_models.errors import CheckpointError
from tests.support.waiting import until

ABOUT = About(
    bundle="compact",
    encoders={"vision": "a", "audio": "b", "text": "c"},
    dims={"vision": 58, "audio": 73, "text": 384},
    checkpoint="compact.safetensors",
    window={"hop_s": 0.2},
    words_due_s=1.5,
    smooth_s=0.3,
    source="camera 0",
    session="ab12cd34",
    version="0.1.0",
    clock_offset_ns=1_700_000_000_000_000_000,
)


def packets(count: int) -> Iterator[Event]:
    """A face, a voice, a text and a hop, again and again."""
    rng = np.random.default_rng(0)
    for number in range(count):
        t_ns = 200_000_000 * (number + 1)
        face = None if number % 3 == 0 else rng.random(58, np.float32)
        yield VisionPacket(
            t_ns=t_ns, progress_ns=t_ns, faces=int(face is not None), features=face, reason="dark"
        )
        yield AudioPacket(
            t_ns=t_ns, progress_ns=t_ns, frames=rng.random((10, 73), np.float32), last_voice_ns=t_ns - 5
        )
        yield TextPacket(
            t_ns=t_ns,
            progress_ns=t_ns,
            embedding=rng.random(384, np.float32),
            committed="schön",
            partial="",
            last_word_ns=t_ns,
        )
        yield Hop(
            end_ns=t_ns,
            origin_ns=0,
            wall="2026-01-01T12:00:00.000Z",
            conditions={"vision": Condition("failed", "the camera is gone")},
            marks=(Mark(number=number + 1, t_ns=t_ns, label="tone", origin="lsl"),) if number == 2 else (),
        )


def write(path: Path, events: Sequence[Event], *, lossless: bool = True) -> Health:
    health = Health()
    recorder = SessionRecorder(path, ABOUT, health, lossless=lossless, replace=False)
    worker = Worker("record", recorder, health)
    worker.start()
    for event in events:
        recorder.put(event)
    recorder.end()
    assert worker.join(20.0)
    recorder.close()
    assert worker.error is None
    return health


def assert_same(found: Sequence[Event], given: Sequence[Event]) -> None:
    for one, other in zip(found, given, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Packet) and isinstance(other, Packet):
            for name in one.__struct_fields__:
                mine, its = getattr(one, name), getattr(other, name)
                if isinstance(its, np.ndarray):
                    np.testing.assert_array_equal(mine, its)
                else:
                    assert mine == its
        else:
            assert one == other


def test_events_come_back_in_their_order_to_the_bit(tmp_path: Path) -> None:
    events = list(packets(20))
    write(tmp_path / "s.mcap", events)
    recording = Recording(tmp_path / "s.mcap")
    assert recording.about == ABOUT
    assert_same(list(recording), events)
    assert not recording.shortfall


def test_the_format_s_own_reader_checks_it_and_finds_topics_and_times(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    write(tmp_path / "s.mcap", list(packets(5)))
    with (tmp_path / "s.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert {channel.topic: channel.message_encoding for channel in summary.channels.values()} == {
            **{f"/emi/{name}": "x-emi-live" for name in ("vision", "audio", "text")},
            **{f"/emi/{name}": "json" for name in ("hop", "estimate")},
        }
        encodings = {schema.name: schema.encoding for schema in summary.schemas.values()}
        assert encodings["emi-live estimate"] == "jsonschema"
        hops = [
            (message.log_time, json.loads(message.data)["end_ns"])
            for _, channel, message in reader.iter_messages(topics=["/emi/hop"])
        ]
    assert hops == [
        (at_ns + ABOUT.clock_offset_ns, at_ns) for at_ns in range(200_000_000, 1_200_000_000, 200_000_000)
    ]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, share: float) -> None:
    path, events = tmp_path / "s.mcap", list(packets(200))
    write(path, events)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    recording = Recording(path)
    found = list(recording)
    assert_same(found, events[: len(found)])
    assert len(found) > (share - 0.3) * len(events)
    assert "cut off" in recording.shortfall


def test_damage_in_the_middle_is_not_taken_for_data(tmp_path: Path) -> None:
    path, events = tmp_path / "s.mcap", list(packets(200))
    write(path, events)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    recording = Recording(path)
    found = list(recording)
    assert_same(found, events[: len(found)])
    assert 0 < len(found) < len(events)
    assert recording.shortfall


@pytest.mark.parametrize("content", [b"", b"no recording at all", b"\x89MCAP0\r\n"])
def test_another_file_is_refused_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.mcap"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="--record"):
        Recording(path)
    with pytest.raises(ConfigurationError, match="no file"):
        Recording(tmp_path / "nowhere.mcap")


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "s.mcap", list(packets(1)))
    with pytest.raises(ConfigurationError, match="--force"):
        SessionRecorder(tmp_path / "s.mcap", ABOUT, Health(), lossless=True, replace=False)
    assert len(list(Recording(tmp_path / "s.mcap"))) == 4


def test_a_slow_disk_costs_the_live_loop_nothing_but_events(tmp_path: Path) -> None:
    health = Health()
    recorder = SessionRecorder(tmp_path / "s.mcap", ABOUT, health, lossless=False, replace=False)
    event = next(packets(1))
    for _ in range(10_000):  # nobody writes
        recorder.put(event)
    assert health.snapshot().counters["record.lost"] == 10_000 - 8_192
    assert [loss.words for loss in losses(health.snapshot())] == [
        "1,808 events not recorded (disk too slow or full)"
    ]
    recorder.close()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    recorder = SessionRecorder(Path("/dev/full"), ABOUT, Health(), lossless=True, replace=True)
    recorder.put(next(packets(1)))
    recorder.end()
    with pytest.raises(LiveError, match="No space"):
        recorder(threading.Event())


@pytest.mark.slow
def test_a_full_disk_in_mid_recording_costs_the_engine_nothing(tmp_path: Path) -> None:
    """In a process of its own, since a limit of the size of files holds for all of them."""
    path = tmp_path / "full.mcap"
    code = f"""
import resource
from functools import partial
from emi_live import LiveEngine, load_config
from emi_live.demo import demo_stages
from emi_live.errors import LiveError
config = load_config(None, ["duration_s=6", "window.hop_s=0.1", "output.record={path}"])
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.RLIM_INFINITY))
stages, seqs = partial(demo_stages, length_s=config.window.length_s), []
try:
    with LiveEngine(config, make_stages=stages) as live:
        for estimate in live.estimates():
            seqs.append(estimate.seq)
except LiveError as error:
    print("said" if "too large" in str(error) else error)
counters = live.health.snapshot().counters
print(len(seqs), counters["record.lost"] > 0, counters.get("fusion.missed_hops", 0) <= 5)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    said, figures = done.stdout.splitlines()
    count, lost, well = figures.split()
    assert (said, lost, well) == ("said", "True", "True")
    assert int(count) >= 50
    assert path.stat().st_size <= 70_000
    recording = Recording(path)
    assert sum(isinstance(event, Hop) for event in recording) >= 10
    assert "cut off" in recording.shortfall


def test_the_offsets_of_other_clocks_are_recorded(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    health = Health()
    health.note("clock.lsl.offset_s", 0.25)
    recorder = SessionRecorder(tmp_path / "s.mcap", ABOUT, health, lossless=True, replace=False)
    recorder.put(next(packets(1)))
    recorder.end()
    recorder(threading.Event())
    with (tmp_path / "s.mcap").open("rb") as file:
        found = {record.name: record.metadata for record in make_reader(file).iter_metadata()}
    assert found["emi-live clocks"] == {"clock.lsl.offset_s": "0.250000000"}
    assert json.loads(found["emi-live"]["clock_offset_ns"]) == ABOUT.clock_offset_ns


@pytest.mark.slow
def test_picture_and_sound_are_what_was_pushed_and_a_replay_is_the_same(tmp_path: Path) -> None:
    from foxglove.messages import CompressedImage, RawAudio
    from mcap.reader import make_reader

    path, rng = tmp_path / "s.mcap", np.random.default_rng(0)
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    sound = (rng.random(1600, np.float32) - 0.5) / 2
    settings = [
        f"output.record={path}",
        "output.record_media=true",
        "window.hop_s=0.1",
        "speech.backend=none",
    ]
    config = load_config(None, [*settings, "face.enabled=false", "fusion.smooth_s=0"])
    with LiveEngine(config) as live:
        for _ in range(12):
            live.push_frame(red)
            live.push_audio(sound)
            threading.Event().wait(0.1)
        live.end()
        estimates = list(live.estimates())
        assert any("PICTURE AND SOUND" in line for line in live.announcements)
    pictures, sounds, schemas = [], [], set()
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            assert schema is not None
            schemas.add(f"{channel.topic} {schema.name} {schema.encoding}")
            if channel.topic == "/emi/picture":
                pictures.append(message.data)
            elif channel.topic == "/emi/sound":
                sounds.append(message.data)
    assert f"/emi/picture {CompressedImage.get_schema().name} protobuf" in schemas
    assert f"/emi/sound {RawAudio.get_schema().name} protobuf" in schemas
    assert len(pictures) >= 8
    jpeg = pictures[0][pictures[0].index(b"\xff\xd8") :]
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown.shape == (48, 64, 3)
    assert abs(int(shown[24, 32, 2]) - 200) < 6  # red, also after JPEG
    wanted = np.rint(sound * 32768).astype("<i2").tobytes()
    heard = b"".join(sounds)
    assert wanted[:400] in heard
    again, _ = played(load_config(None, [f"source.input={path}"]))
    assert [comparable(one) for one in again] == [comparable(one) for one in estimates]


def test_media_of_the_demo_or_of_a_file_are_refused(tmp_path: Path) -> None:
    settings = [f"output.record={tmp_path}/s.mcap", "output.record_media=true"]
    with pytest.raises(ConfigurationError, match="record-media"):
        played(load_config(None, settings), demo=True)


def played(config: LiveConfig, *, demo: bool = False) -> tuple[list[Estimate], Health]:
    health = Health()
    stages = partial(demo_stages, length_s=config.window.length_s) if demo else None
    with LiveEngine(config, make_stages=stages, health=health) as live:
        estimates: list[Estimate] = []
        for estimate in live.estimates():
            if demo and len(estimates) == 3:
                live.mark("tone")
            estimates.append(estimate)
    return estimates, health


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Estimate]]:
    """A recorded live run of the demo, 3 s, and its estimates."""
    path = tmp_path_factory.mktemp("session") / "demo.mcap"
    settings = ["duration_s=3", f"output.record={path}", "fusion.smooth_s=0.5"]
    estimates, _ = played(load_config(None, settings), demo=True)
    return path, estimates


def comparable(estimate: Estimate) -> tuple[object, ...]:
    return (
        *(estimate.seq, estimate.t_s, estimate.wall, estimate.intensities, estimate.intervals),
        *(estimate.modalities, estimate.source, estimate.session, estimate.marks),
    )


@pytest.mark.slow
def test_a_replay_of_a_live_run_is_the_same_to_the_bit(session: tuple[Path, list[Estimate]]) -> None:
    path, estimates = session
    again, _ = played(load_config(None, [f"source.input={path}"]))
    assert len(again) >= 10
    assert [comparable(one) for one in again] == [comparable(one) for one in estimates]
    assert [mark.label for one in again for mark in one.marks] == ["tone"]


@pytest.mark.slow
def test_a_replay_can_show_more_and_another_network(session: tuple[Path, list[Estimate]]) -> None:
    path, _ = session
    more, _ = played(load_config(None, [f"source.input={path}", "fusion.contributions=true", "duration_s=2"]))
    assert len(more) == 10
    assert all(one.modalities["vision"].contribution is not None for one in more)
    with pytest.raises(CheckpointError, match="nowhere"):
        played(load_config(None, [f"source.input={path}", "fusion.checkpoint=/nowhere/bah.safetensors"]))


@pytest.mark.slow
def test_a_run_that_was_killed_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "killed.mcap"
    program = str(Path(sys.executable).with_name("emi-live"))
    with subprocess.Popen(
        [program, "--demo", "--no-ui", "--record", str(path)], stderr=subprocess.DEVNULL, env=os.environ
    ) as process:
        until(lambda: path.exists() and path.stat().st_size > 70_000, timeout_s=60.0)
        process.send_signal(signal.SIGKILL)
    estimates, health = played(load_config(None, [f"source.input={path}"]))
    assert len(estimates) > 10
    assert tuple(estimates[0]) == EMOTIONS
    assert "cut off" in health.status("file").detail
