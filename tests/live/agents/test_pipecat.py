"""The processor for pipecat, in pipecat's own harness: clips come as frames of a transport."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from pipecat.frames.frames import (
    CancelFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InputImageRawFrame,
    TextFrame,
    UserImageRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.tests.utils import SleepFrame, run_test

from emi_live import LiveConfig, LiveEngine
from emi_live.agents.pipecat import EmotionFrame, EmotionProcessor
from emi_live.errors import ConfigurationError
from tests.live.end_to_end.support import emi_live as run_emi_live

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pipecat")


def settings(assets: Path, **more: Any) -> LiveConfig:
    return LiveConfig.model_validate(
        {
            "speech": {"backend": "none"},
            "models": {"directory": assets / "mediapipe", "offline": True},
            **more,
        }
    )


def frames_of(clip: Path, end_s: float = 1e9) -> list[Frame]:
    """What a transport would send: pictures and sound in the order of time, `pts` in nanoseconds."""
    timed: list[tuple[int, Frame]] = []
    with av.open(str(clip)) as container:
        for part in container.decode():
            t_ns = round(float(part.pts * part.time_base) * 10**9)
            if t_ns > (end_s + 1.0) * 10**9:  # sound and pictures are no further apart
                break
            if isinstance(part, av.VideoFrame):
                rgb = part.to_ndarray(format="rgb24")
                frame: Frame = InputImageRawFrame(rgb.tobytes(), (part.width, part.height), "RGB")
            else:
                sound = av.AudioResampler(format="s16", layout="mono").resample(part)[0].to_ndarray()
                frame = InputAudioRawFrame(sound.tobytes(), part.sample_rate, 1)
            frame.pts = t_ns
            if t_ns < end_s * 10**9:
                timed.append((t_ns, frame))
    return [frame for _, frame in sorted(timed, key=lambda item: item[0])]


def run(
    processor: EmotionProcessor, frames: Sequence[Frame], **more: Any
) -> tuple[list[EmotionFrame], list[Frame], list[Frame]]:
    """The emotions, the other frames that came out, and those that went back."""
    down, up = asyncio.run(run_test(processor, frames_to_send=frames, start_timeout=60.0, **more))
    emotions = [frame for frame in down if isinstance(frame, EmotionFrame)]
    return emotions, [frame for frame in down if not isinstance(frame, EmotionFrame)], list(up)


@pytest.mark.assets
@pytest.mark.slow
def test_a_clip_has_the_numbers_of_emi_live_and_every_frame_comes_out(assets: Path) -> None:
    clip = assets / "av/face_and_speech.mp4"
    sent = frames_of(clip, end_s=2.5)
    processor = EmotionProcessor(LiveEngine(settings(assets, mode="exact")), emit="estimate")
    emotions, others, back = run(processor, sent)
    assert [frame.id for frame in others] == [frame.id for frame in sent]
    assert not back
    lines = run_emi_live(assets, "--input", clip, "--duration", "2.4", backend="none").lines
    assert len(lines) == 12
    for frame, line in zip(emotions, lines, strict=False):  # without --duration, the end is the end of media
        assert frame.t_ns == round(line["t"] * 10**9)
        assert frame.intensities == pytest.approx(line["intensities"], abs=6e-5)
        assert frame.states == {name: one["state"] for name, one in line["modalities"].items()}
    happy = msgspec.structs.replace(emotions[-1].estimate, intensities=(0.0, 0.31, 0.0, 0.0, 0.05, 0.62))
    last = replace(emotions[-1], estimate=happy, intensities=happy.as_dict())
    assert last.describe() == "joy 0.62, amusement 0.31 (from face, voice)"


@pytest.fixture
def speech(assets: Path) -> list[Frame]:
    """A sentence, then a second of silence, as the frames of a pipeline with voice activity detection."""
    spoken = frames_of(assets / "speech/LJ001-0002.wav")
    end_ns = spoken[-1].pts + 23_000_000
    silence = [InputAudioRawFrame(bytes(16_000 // 25 * 2), 16_000, 1) for _ in range(25)]
    for number, frame in enumerate(silence):
        frame.pts = end_ns + number * 40_000_000
    stopped = VADUserStoppedSpeakingFrame(stop_secs=0.2)
    return [VADUserStartedSpeakingFrame(), *spoken, *silence[:20], stopped, *silence[20:]]


@pytest.mark.assets
@pytest.mark.slow
def test_an_utterance_has_one_frame_with_its_words_and_their_times(
    assets: Path, whisper_base: Path, minilm: Path, speech: list[Frame]
) -> None:
    models = {"directory": whisper_base.parent, "offline": True}
    config = settings(assets, mode="exact", face={"enabled": False}, speech={}, models=models)
    emotions, others, back = run(EmotionProcessor(LiveEngine(config)), speech)
    assert len(others) == len(speech)
    assert not back
    one = emotions[0]
    assert one.text.lower().strip(".") == "in being comparatively modern"
    assert [word.start_ns for word in one.words] == sorted(word.start_ns for word in one.words)
    assert all(0 <= word.start_ns < word.end_ns <= one.t_ns for word in one.words)
    assert one.peaks.keys() == one.intensities.keys()
    assert all(one.peaks[name] >= value for name, value in one.intensities.items())
    assert len([word for frame in emotions for word in frame.words]) == 4  # each comes once
    assert len(emotions) == 1 or emotions[1].words  # a second one only for words that were late


@pytest.mark.assets
@pytest.mark.slow
def test_live_the_newest_picture_wins_no_sound_is_lost_and_the_loop_never_waits(assets: Path) -> None:
    picture = InputImageRawFrame(bytes(3 * 640 * 360), (640, 360), "RGB")
    rgba = UserImageRawFrame(bytes(4 * 64 * 64), (64, 64), "RGBA", user_id="guest")
    stereo = InputAudioRawFrame(bytes(4 * 480), 48_000, 2)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async def both(processor: EmotionProcessor) -> Sequence[Frame]:
        ticking = asyncio.create_task(tick())
        sent = [part for _ in range(60) for part in (stereo, picture, rgba, SleepFrame(0.01))]
        down, up = await run_test(processor, frames_to_send=sent, start_timeout=60.0)
        ticking.cancel()
        return [*down, *up]

    seen: list[Frame] = []

    def accept(frame: Frame) -> bool:
        seen.append(frame)
        return frame is not rgba

    live = LiveEngine(settings(assets))
    processor = EmotionProcessor(live, emit="estimate", accept=accept)
    frames = asyncio.run(both(processor))
    emotions = [frame for frame in frames if isinstance(frame, EmotionFrame)]
    assert len(emotions) >= 2
    assert not [frame for frame in frames if isinstance(frame, ErrorFrame)]
    counters = live.health.snapshot().counters
    assert counters["video.frames"] == 60  # those of the guest were left out
    assert len(seen) == 180
    assert counters.get("audio.gaps", 0) == 0
    assert ticks > 600


@pytest.mark.assets
@pytest.mark.slow
def test_frames_of_no_use_are_said_once_and_a_cancelled_pipeline_leaves_no_thread(assets: Path) -> None:
    odd = [InputImageRawFrame(b"JFIF", (64, 64), "JPEG") for _ in range(3)]
    live = LiveEngine(settings(assets, face={"enabled": False}))
    _, others, back = run(
        EmotionProcessor(live), [*odd, TextFrame("on"), SleepFrame(0.1), CancelFrame()], send_end_frame=False
    )
    assert sum(isinstance(frame, InputImageRawFrame) for frame in others) == 3
    assert [str(frame.error) for frame in back if isinstance(frame, ErrorFrame) and "JPEG" in frame.error]
    assert len([frame for frame in back if isinstance(frame, ErrorFrame)]) == 1
    with pytest.raises(ConfigurationError, match="has ended"):
        live.push_audio(np.zeros(160, np.float32))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("emi-")]


def test_a_bot_goes_on_without_emotions_if_the_engine_cannot_load(tmp_path: Path) -> None:
    config = LiveConfig.model_validate({"fusion": {"checkpoint": tmp_path / "none.safetensors"}})
    processor = EmotionProcessor(LiveEngine(config))
    sound = [InputAudioRawFrame(bytes(640), 16_000, 1) for _ in range(3)]
    emotions, others, _ = run(processor, sound)
    assert others == sound
    assert not emotions
    assert not processor.is_usable  # pipecat has reported the error


def test_an_engine_that_captures_is_refused() -> None:
    config = LiveConfig.model_validate({"source": {"camera": 0}})
    with pytest.raises(ConfigurationError, match="camera"):
        EmotionProcessor(LiveEngine(config))


def test_the_error_names_the_extra() -> None:
    code = (
        "from tests.support.absent import hide; hide(frozenset({'pipecat'})); import emi_live.agents.pipecat"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingPackageError" in done.stderr
    assert "emi-live[pipecat]" in done.stderr
