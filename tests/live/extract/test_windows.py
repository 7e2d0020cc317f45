"""What a network is trained on is what it will be shown: each window of a live run, cut from a recording."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch

from emi_live.bundle import Encoders, bundle_of
from emi_live.clock import NS_PER_S, seconds_to_ns
from emi_live.config import LiveConfig, SourceConfig, WindowConfig
from emi_live.extract.recorder import FOREVER, Recording, record_clip
from emi_live.flow import Flow
from emi_live.live import LiveEngine
from emi_live.messages import END_OF_STREAM, AudioPacket, Packet, TextPacket
from emi_live.stages import Stage
from emi_models import Modality
from emi_models.data import open_clips
from emi_models.data.clip import Clip
from emi_models.inputs import COMPACT_SHAPES
from emi_models.store import ModelStore
from tests.live.end_to_end.support import first_seconds
from tests.live.extract.support import COMPACT_DIMS, KeepingEngine, Overheard, offline_config

pytestmark = [pytest.mark.assets, pytest.mark.slow]

LIMITS = WindowConfig()
LONG = "av/face_lost_4s_to_8s_speech_throughout.mp4"
LONG_UNTIL_NS = 10 * NS_PER_S
Recorded: TypeAlias = tuple[Recording, list[Packet]]


@pytest.fixture(scope="module")
def config(assets: Path) -> Iterator[LiveConfig]:
    pytest.importorskip("pocketsphinx", reason="the extra `pocketsphinx` is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `emi-live` and `emi extract` do
    yield offline_config(f"models.directory={(assets / 'mediapipe').as_posix()!r}")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoders(config: LiveConfig) -> Iterator[Encoders]:
    store = ModelStore(config.models.directory, offline=True)
    loaded = bundle_of(config).load(config, store, vision=True, audio=True)
    assert not loaded.unavailable
    yield loaded
    loaded.close()


def record(path: Path, config: LiveConfig, encoders: Encoders, until_ns: int = FOREVER) -> Recorded:
    kept: list[Packet] = []

    def overheard(flow: Flow) -> list[Stage]:
        return [Overheard(stage, kept) for stage in bundle_of(config).stages(encoders, flow)]

    encoders.forget()
    record = record_clip(path, config, overheard, COMPACT_DIMS, until_ns)
    assert record.damaged == 0
    return record.recording, kept


@pytest.fixture(scope="module")
def recorded(assets: Path, config: LiveConfig, encoders: Encoders) -> Callable[[str], Recorded]:
    """Clips of the test media, each recorded once; of the long one as much as a test looks at."""

    def recorded_once(name: str) -> Recorded:
        return record(assets / name, config, encoders, LONG_UNTIL_NS if name == LONG else FOREVER)

    return cache(recorded_once)


def clip_of(recording: Recording) -> Clip:
    tracks = recording.tracks
    return Clip("clip", tracks["vision"], tracks["audio"], tracks["text"], recording.duration_ns)


def recent(t_ns: int | None, end_ns: int, within_s: float) -> bool:
    return t_ns is not None and end_ns - t_ns <= seconds_to_ns(within_s)


@pytest.mark.parametrize(
    ("spans_s", "duration_s"),
    [
        ({}, 8.6),  # the face is back after 7.9 s
        ({"vision": 3.0, "audio": 1.5}, 5.4),
    ],
)
def test_every_window_of_a_live_run_is_cut_from_the_recording(
    assets: Path,
    config: LiveConfig,
    recorded: Callable[[str], Recorded],
    spans_s: dict[Modality, float],
    duration_s: float,
    tmp_path: Path,
) -> None:
    clip_path = first_seconds(assets / LONG, duration_s + 0.6, tmp_path)
    engine, source = KeepingEngine(spans_s), SourceConfig(input=clip_path)
    live = config.model_copy(update={"source": source, "duration_s": duration_s})
    with LiveEngine(live, engine=engine) as running:
        estimates = list(running.estimates())
    recording, packets = recorded(LONG)
    clip = clip_of(recording)

    voices = [p.last_voice_ns for p in packets if isinstance(p, AudioPacket) and p.last_voice_ns is not None]
    texts = [p for p in packets if isinstance(p, TextPacket) and p.progress_ns != END_OF_STREAM]
    assert len(estimates) == len(engine.windows) >= duration_s / 0.2
    assert len(clip.text.t_ns) > 10
    lived: dict[str, set[bool]] = {"vision": set(), "audio": set(), "text": set()}
    for estimate, shown in zip(estimates, engine.windows, strict=True):
        end_ns = estimate.t_ns
        cut = clip.window(COMPACT_SHAPES, end_ns, spans_s)
        for name in ("vision", "vision_mask", "audio", "audio_mask"):
            assert torch.equal(getattr(cut, name), getattr(shown, name)), (name, end_ns)

        face_ns = max((t for t in clip.vision.t_ns if t <= end_ns), default=None)
        voice_ns = max((t for t in voices if t <= end_ns), default=None)
        word_ns = next((p.last_word_ns for p in reversed(texts) if p.t_ns <= end_ns), None)
        expected = {
            "vision": bool(cut.vision_present) and recent(face_ns, end_ns, LIMITS.vision_dropout_s),
            "audio": bool(cut.audio_present) and recent(voice_ns, end_ns, LIMITS.audio_dropout_s),
            "text": bool(cut.text_present) and recent(word_ns, end_ns, LIMITS.text_dropout_s),
        }
        assert expected == {m: bool(getattr(shown, f"{m}_present")) for m in expected}, end_ns
        if expected["text"]:
            assert torch.equal(cut.text, shown.text), end_ns
        for modality, present in expected.items():
            lived[modality].add(present)
    assert all(True in seen for seen in lived.values())
    assert False in lived["vision"]


def test_a_recording_of_the_first_seconds_is_the_start_of_a_longer_one(
    assets: Path, config: LiveConfig, encoders: Encoders, recorded: Callable[[str], Recorded]
) -> None:
    until_ns = 3 * NS_PER_S
    start, _ = record(assets / LONG, config, encoders, until_ns)
    longer, _ = recorded(LONG)
    assert start.duration_ns == until_ns < longer.duration_ns
    for modality, track in start.tracks.items():
        rest = longer.tracks[modality]
        count = int(np.searchsorted(rest.t_ns, until_ns, side="right"))
        assert 0 < count < len(rest.t_ns)
        assert np.array_equal(track.t_ns, rest.t_ns[:count])
        assert np.array_equal(track.values, rest.values[:count])
    assert len(start.transcript.split()) < len(longer.transcript.split())


SHORT = ("speech/english_one_two_three.wav", "face/pyfeat_single_face.mp4")


def test_one_clip_leaves_no_trace_in_the_next(
    assets: Path, config: LiveConfig, encoders: Encoders, recorded: Callable[[str], Recorded]
) -> None:
    first = [recorded(name)[0] for name in SHORT]
    again = [record(assets / name, config, encoders)[0] for name in SHORT]
    assert first[0].transcript == again[0].transcript != ""
    for one, other in zip(first, again, strict=True):
        for modality, track in one.tracks.items():
            assert np.array_equal(track.values, other.tracks[modality].values)


def test_the_command_writes_what_is_recorded(
    assets: Path, recorded: Callable[[str], Recorded], tmp_path: Path
) -> None:
    """In separate processes, one clip after the other, and back from the files."""
    (tmp_path / "clips").mkdir()
    for name in SHORT:
        (tmp_path / "clips" / Path(name).name).symlink_to(assets / name)
    command = [str(Path(sys.executable).with_name("emi")), "extract", "--offline"]
    command += ["--videos", str(tmp_path / "clips"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "EMI_MODEL_DIR": str(assets / "mediapipe")}
    subprocess.run([*command, "--set", "speech.backend=pocketsphinx"], check=True, env=environment)
    clips = open_clips(tmp_path / "out")
    assert len(clips.ids("train")) == 2
    for name in SHORT:
        written, (recording, _) = clips.load(Path(name).stem), recorded(name)
        assert written.duration_ns == recording.duration_ns
        for modality, track in recording.tracks.items():
            assert np.array_equal(getattr(written, modality).t_ns, track.t_ns)
            assert np.array_equal(getattr(written, modality).values, track.values)
