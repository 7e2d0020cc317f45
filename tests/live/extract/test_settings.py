from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emi_live.errors import ConfigurationError
from emi_live.extract.encoders import load_settings
from emi_live.messages import END_OF_STREAM
from emi_models import Modality

IDS: dict[Modality, str] = {"vision": "v", "audio": "a"}


def test_by_default_it_is_what_runs_live_for_twelve_seconds() -> None:
    settings = load_settings()
    assert settings.wanted == ("vision", "audio", "text")
    assert settings.until_ns == 12_000_000_000
    assert settings.live.speech.backend == "auto"
    assert load_settings(seconds=0).until_ns == END_OF_STREAM


def test_what_is_left_out_does_not_run() -> None:
    live = load_settings(without=["vision", "text"]).live
    assert (live.face.enabled, live.audio.enabled, live.speech.backend) == (False, True, "none")


def test_the_papers_bundle_asks_the_largest_whisper_once_an_utterance() -> None:
    speech = load_settings("taemi").live.speech
    assert (speech.backend, speech.model) == ("whisper", "large-v3-turbo")
    assert speech.partial_every_s > speech.limit_s
    assert load_settings("taemi", settings=["speech.model=small"]).live.speech.model == "small"


def test_a_gpu_is_taken_where_most_of_the_work_is_for_one() -> None:
    def device(bundle: str | None = None, **options: Any) -> str:
        return load_settings(bundle, **options).live.models.device

    assert (device(), device("taemi")) == ("cpu", "auto")
    assert device("compact", device="cuda:1") == "cuda:1"
    assert device("taemi", settings=["models.device=cpu"]) == "cpu"
    with pytest.raises(ConfigurationError, match="--device tpu: choose auto, cpu, cuda or cuda:N"):
        device(device="tpu")


def test_encoders_of_the_papers_bundle_may_lie_anywhere(tmp_path: Path) -> None:
    settings = load_settings("taemi", settings=[f"face.model={tmp_path}"])
    assert settings.folders == {"vision": tmp_path}


def test_a_preset_may_choose_the_bundle_and_its_settings_come_before_those_of_extraction(
    tmp_path: Path,
) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('bundle = "taemi"\n[speech]\nmodel = "small"\n[audio]\ncontext = "cached"\n')
    settings = load_settings(preset=str(preset))
    assert settings.bundle == "taemi"
    assert (settings.live.speech.model, settings.live.audio.context) == ("small", "cached")
    assert settings.live.speech.partial_every_s == 3600
    assert load_settings("taemi").live.audio.context == "full"
    assert load_settings(preset="taemi").bundle == "taemi"
    assert load_settings("compact", preset="robot").bundle == "compact"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"without": ["smell"]}, "there are vision, audio, text"),
        ({"without": ["vision", "audio", "text"]}, "nothing is left"),
        ({"seconds": -1.0}, "cannot be"),
        ({"seconds": float("nan")}, "cannot be"),
        ({"settings": ["source.camera=0"]}, "means nothing here"),
        ({"settings": ["speech.speed=2"]}, "unknown setting"),
        ({"settings": ["face.model=/absent"]}, "belongs to the bundle taemi"),
        ({"bundle": "taemi", "settings": ["face.model=/absent"]}, "no such folder"),
        ({"bundle": "taemi", "settings": ["audio.hop_s=0.2"]}, "whole"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, list[str]], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        load_settings(**options)  # type: ignore[arg-type]


def test_the_fingerprint_tells_what_changes_features_and_nothing_else(tmp_path: Path) -> None:
    same = load_settings().fingerprint(IDS, "sphinx")
    assert len(same) == 16
    assert load_settings(settings=["models.offline=true"]).fingerprint(IDS, "sphinx") == same
    assert load_settings(settings=["speech.threads=2"]).fingerprint(IDS, "sphinx") == same
    others = [
        load_settings().fingerprint(IDS, "whisper"),
        load_settings().fingerprint({"vision": "v"}, "sphinx"),
        load_settings(seconds=6).fingerprint(IDS, "sphinx"),
        load_settings(settings=["face.max_fps=10"]).fingerprint(IDS, "sphinx"),
        load_settings(settings=["audio.voice_threshold=0.4"]).fingerprint(IDS, "sphinx"),
        load_settings(settings=["speech.partial_every_s=1"]).fingerprint(IDS, "sphinx"),
        load_settings(settings=["window.length_s=6"]).fingerprint(IDS, "sphinx"),
        load_settings("taemi").fingerprint(IDS, "sphinx"),
        load_settings("taemi", settings=[f"text.model={tmp_path}"]).fingerprint(IDS, "sphinx"),
        load_settings("taemi", settings=["audio.context=cached"]).fingerprint(IDS, "sphinx"),
        load_settings("taemi", settings=["face.crop_fps=3"]).fingerprint(IDS, "sphinx"),
    ]
    assert len({same, *others}) == len(others) + 1


def test_a_sound_track_is_part_of_what_features_are() -> None:
    default, second = load_settings(), load_settings(audio_track="2")
    assert second.live.source.audio_track == "2"
    assert second.fingerprint({}, "") != default.fingerprint({}, "") == load_settings().fingerprint({}, "")
