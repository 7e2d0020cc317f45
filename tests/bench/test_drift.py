from __future__ import annotations

import json
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_bench.cli import app
from emi_bench.drift import (
    RANDOM_MODELS,
    VoiceModel,
    WorkCounter,
    measure_drift,
    open_network,
    open_voice_model,
)
from emi_bench.drift_report import StreamSetting
from emi_live.cli.errors import run_app
from emi_models import EMOTIONS
from emi_models.checkpoint import CheckpointHeader, save_checkpoint
from emi_models.errors import CheckpointError
from emi_models.networks import build_network, describe_config
from tests.models.encoders.tiny_models import tiny_speech


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> VoiceModel:
    return open_voice_model("random-small", tmp_path_factory.mktemp("small"))


def voice(seconds: float) -> NDArray[np.float32]:
    """A buzz that comes and goes, over noise."""
    t = np.arange(round(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(0).normal(0, 0.01, t.size)
    buzz = 0.2 * np.sign(np.sin(800 * t)) * np.sin(9 * t) ** 2
    found: NDArray[np.float32] = (buzz + noise).astype(np.float32)
    return found


def wav(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((32_000 * voice(seconds)).astype("<i2").tobytes())
    return path


def bench(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["drift", *map(str, args)], "emi bench")
    return int(ended.value.code or 0)


def checkpoint(path: Path, audio_dim: int, encoder_id: str, modalities: tuple[Any, ...] = ("audio",)) -> Path:
    shapes = {"vision_frames": 4, "vision_dim": 3, "audio_frames": 599, "audio_dim": audio_dim, "text_dim": 5}
    config = {"shapes": shapes, "d_model": 16, "heads": 2, "mlp_hidden": 8}
    network = build_network("taemi", config, modalities)
    header = CheckpointHeader(
        system="taemi",
        config=describe_config(network.config),
        modalities=modalities,
        encoders=dict.fromkeys(modalities, encoder_id),
        data="none",
        licence="MIT",
        scores={},
        created_by="a test",
    )
    save_checkpoint(path, network, header)
    return path


def test_what_fits_in_one_step_has_no_drift(small: VoiceModel) -> None:
    settings = [StreamSetting("cached", 1.0, 1.0, 0.24), StreamSetting("recompute", 1.0, 1.0, 0.24)]
    report = measure_drift(
        small, open_network(None, small), [("short", voice(0.9))], settings, lambda *_: None
    )
    for cell in report.cells:
        assert cell.features.frames == 44
        assert cell.features.worst > 1 - 1e-6
        assert cell.intensities.windows == 1
        assert cell.intensities.worst < 1e-4


def test_what_is_longer_drifts_and_waiting_and_context_help(small: VoiceModel) -> None:
    settings = [StreamSetting("cached", 0.5, 0.1, 0.0), StreamSetting("recompute", 0.5, 6.0, 1.0)]
    told: list[tuple[int, int]] = []
    report = measure_drift(
        small,
        open_network(None, small),
        [("one", voice(3.0)), ("two", voice(2.0))],
        settings,
        lambda _, done, of: told.append((done, of)),
    )
    least, most = report.cells
    assert (least.features.frames, most.features.frames) == (149 + 99, 149 + 99)
    assert least.features.worst <= least.features.p5 <= least.features.mean < most.features.mean < 1
    assert 0 < least.intensities.mean <= least.intensities.worst < 1
    assert len(least.intensities.by_emotion) == len(EMOTIONS)
    assert (least.latency_s, most.latency_s) == (0.5, 1.5)
    assert least.steps_ms is not None
    assert least.real_time_factor > 0
    assert told == [(done, 7) for done in range(7)]


def test_work_is_counted_and_less_than_a_pass_at_each_hop(small: VoiceModel) -> None:
    work = WorkCounter(small.encoder.model)
    whole = work.whole()
    short, long = (work.step(StreamSetting("cached", 0.5, left, 0.24)) for left in (1.0, 6.0))
    recomputed = work.step(StreamSetting("recompute", 0.5, 6.0, 0.24))
    assert 0 < short < long < recomputed < whole
    assert long < 0.25 * whole
    hops = [work.step(StreamSetting("cached", hop, 3.0, 0.24)) / hop for hop in (0.1, 0.5, 2.0)]
    assert hops == sorted(hops, reverse=True)  # the held-back edge is passed again at each hop


def test_the_large_random_model_has_the_published_shape() -> None:
    sizes = RANDOM_MODELS["random-large"]
    assert (sizes["hidden_size"], sizes["num_hidden_layers"], sizes["num_attention_heads"]) == (1024, 12, 16)


def test_a_run_is_a_table_a_file_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "drift.json"
    clip = wav(tmp_path / "talk.wav", 1.6)
    assert bench(clip, "--hop", 0.5, "--left", 1, "--hold", 0, "--hold", 0.24, "--json", path) == 0
    said = capsys.readouterr().out
    assert said.count("RANDOM WEIGHTS") == 2
    assert all(len(line.rstrip()) <= 80 for line in said.splitlines())
    found = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert (found["bench"], found["random_model"], found["random_network"]) == ("drift", True, True)
    assert found["clips"] == [{"name": "talk.wav", "seconds": 1.6}]
    assert [cell["setting"]["hold_s"] for cell in found["cells"]] == [0.0, 0.24]
    assert all(0 < cell["features"]["mean"] <= 1 for cell in found["cells"])
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["report", str(path), "--out", str(tmp_path / "page")], "emi bench")
    assert not ended.value.code
    page = (tmp_path / "page.md").read_text()
    assert page.count("**RANDOM WEIGHTS") == 2
    assert page.count("| cached | 0.5 | 1 |") == 2
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_a_model_and_a_checkpoint_of_one_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = tiny_speech(tmp_path / "model", "wavlm", head=False)
    listener = open_voice_model(str(folder), tmp_path)
    weights = checkpoint(tmp_path / "mine.safetensors", listener.encoder.dim, listener.encoder.encoder_id)
    clip = wav(tmp_path / "talk.wav", 1.2)
    arguments = (clip, "--model", folder, "--checkpoint", weights, "--hop", 0.5, "--left", 1, "--json", "-")
    assert bench(*arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["random_model"]
    assert not found["random_network"]
    assert found["model"].startswith("wavlm-32x2@")
    assert found["network"].startswith("mine.safetensors: taemi")
    assert math.isfinite(found["cells"][0]["intensities"]["mean"])


def test_a_checkpoint_for_other_features_or_without_voice_is_refused(
    small: VoiceModel, tmp_path: Path
) -> None:
    other = checkpoint(tmp_path / "other.safetensors", small.encoder.dim, "someone/else")
    with pytest.raises(CheckpointError, match="someone/else"):
        open_network(other, small)
    words = checkpoint(tmp_path / "words.safetensors", 3, small.encoder.encoder_id, ("text",))
    with pytest.raises(CheckpointError, match="audio"):
        open_network(words, small)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--hop", "0.25"), "--hop 0.25"),
        (("--left", "-1"), "--left -1"),
        (("--hold", "nan"), "--hold nan"),
        (("--strategy", "guess"), "guess"),
        (("--json", "/nowhere/drift.json"), "/nowhere"),
        (("--assets", "/nowhere"), "jfk.flac"),
        (("/nowhere/talk.wav",), "talk.wav"),
        (("SHORT",), "short.wav"),
        (("TALK", "--model", "/nowhere"), "random-large"),
    ],
)
def test_bad_use_is_one_line_at_once(
    tmp_path: Path, args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"SHORT": lambda: wav(tmp_path / "short.wav", 0.3), "TALK": lambda: wav(tmp_path / "t.wav", 1.0)}
    assert bench(*(files[arg]() if arg in files else arg for arg in args)) == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert "Traceback" not in said
