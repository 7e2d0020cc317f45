from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ctranslate2 import get_cuda_device_count

from emi_live.bundle.base import Encoders, load_speech
from emi_live.config import LiveConfig
from emi_live.extract.encoders import fetch_models, load_settings
from emi_models.errors import ModelUnavailableError
from emi_models.store import ModelStore


class Shelf(ModelStore):
    """A store that has the models it is told to have, and remembers what it was asked for."""

    def __init__(self, *names: str) -> None:
        super().__init__(Path("/nowhere"), offline=True)
        self._names = names
        self.asked: list[str] = []

    def locate(self, name: str, progress: Callable[..., None] | None = None) -> Path:
        self.asked.append(name)
        if name not in self._names:
            raise ModelUnavailableError(f"{name} is not here: run `emi models pull {name}`")
        return Path("/nowhere", name)


COMPACT = ("face-landmarker", "all-minilm-l6-v2")


def test_the_recogniser_is_settled_once_for_all_processes() -> None:
    settings, why = fetch_models(load_settings(), Shelf(*COMPACT, "whisper-base"))
    assert (settings.live.speech.backend, why) == ("whisper", "")
    settings, why = fetch_models(load_settings(), Shelf(*COMPACT))
    assert settings.live.speech.backend == "pocketsphinx"
    assert why == "whisper-base is not here: run `emi models pull whisper-base`"


@pytest.mark.slow
@pytest.mark.skipif(get_cuda_device_count() > 0, reason="there is a GPU, and this is about one that fails")
def test_whisper_says_why_it_does_not_run_on_a_gpu(
    whisper_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(device: str) -> Encoders:
        config = LiveConfig.model_validate(
            {"models": {"device": device}, "speech": {"backend": "whisper", "model": str(whisper_base)}}
        )
        encoders = Encoders()
        load_speech(encoders, config, Shelf(), None)
        encoders.close()
        return encoders

    monkeypatch.setattr("emi_models.device.gpus_here", lambda: 1)
    (said,) = load("auto").announcements
    assert said.startswith("words: Whisper base (int8); not on the GPU: Whisper cannot run on cuda (")
    monkeypatch.setattr("emi_models.device.gpus_here", lambda: 0)
    assert load("auto").announcements == ["words: Whisper base (int8)"]
    strict = load("cuda")
    assert strict.recognizer is None
    assert "Whisper cannot run on cuda" in strict.unavailable["text"]


def test_what_is_left_out_needs_no_model() -> None:
    shelf = Shelf()
    settings, why = fetch_models(load_settings(without=["vision", "text"]), shelf)
    assert (shelf.asked, settings.live.speech.backend, why) == ([], "none", "")


def test_the_same_recogniser_is_the_same_features_however_it_was_chosen() -> None:
    chosen, _ = fetch_models(load_settings(), Shelf(*COMPACT))
    named = load_settings(settings=["speech.backend=pocketsphinx"])
    assert chosen.fingerprint({}, "sphinx") == named.fingerprint({}, "sphinx")


@pytest.mark.parametrize(
    ("settings", "here", "why"),
    [
        ([], (), "vision cannot be extracted: .*pull face-landmarker`; or --without vision"),
        ([], ("face-landmarker",), "text cannot be extracted: .*minilm.*; or --without text"),
        (["speech.backend=whisper"], COMPACT, "or --set speech.model=FOLDER, or --without text"),
    ],
)
def test_a_model_that_is_not_here_is_no_modality(
    settings: list[str], here: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ModelUnavailableError, match=why):
        fetch_models(load_settings(settings=settings), Shelf(*here))


def test_a_model_of_the_papers_bundle_may_be_replaced_by_a_folder() -> None:
    with pytest.raises(ModelUnavailableError, match="--without vision"):
        fetch_models(load_settings("taemi"), Shelf("face-landmarker"))
    with pytest.raises(ModelUnavailableError, match="pull face-landmarker"):
        fetch_models(load_settings("taemi"), Shelf())


def test_a_folder_of_ones_own_replaces_a_model_but_not_the_one_that_finds_faces(tmp_path: Path) -> None:
    options = [f"{key}={tmp_path}" for key in ("face.model", "audio.model", "text.model")]
    shelf = Shelf("face-landmarker")
    fetch_models(load_settings("taemi", settings=[*options, f"speech.model={tmp_path}"]), shelf)
    assert shelf.asked == ["face-landmarker"]
