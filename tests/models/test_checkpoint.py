"""Checkpoints: they come back whole, and damaged or foreign ones are refused in one line."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emi_models.checkpoint import (
    CheckpointHeader,
    content_hash,
    load_checkpoint,
    packaged_checkpoint,
    read_header,
    save_checkpoint,
)
from emi_models.errors import CheckpointError
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks import describe_config
from emi_models.networks.taemi import Taemi, TaemiConfig

SMALL = FusionShapes(vision_frames=4, vision_dim=3, audio_frames=5, audio_dim=4, text_dim=6)
CONFIG = TaemiConfig(shapes=SMALL, modalities=("audio", "text"), d_model=8, heads=2, mlp_hidden=8)
ENCODERS = {"vision": "face@1", "audio": "voice@1", "text": "words@1"}
HEADER = CheckpointHeader(
    system="taemi",
    config=describe_config(CONFIG),
    modalities=CONFIG.modalities,
    encoders=ENCODERS,
    data="none",
    licence="Apache-2.0",
    scores={"pearson": 0.5},
    created_by="test",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    target = tmp_path / "net.safetensors"
    save_checkpoint(target, Taemi(CONFIG), HEADER)
    return target


def rewrite(path: Path, change: dict[str, object]) -> None:
    """The same weights under a header with some entries changed."""
    metadata = json.loads(json.dumps({f: getattr(HEADER, f) for f in HEADER.__dataclass_fields__})) | change
    save_file(load_file(path), path, metadata={"emi_checkpoint": json.dumps(metadata)})


def test_what_was_saved_comes_back(path: Path) -> None:
    loaded = load_checkpoint(path, expect_encoders=ENCODERS)
    assert loaded.header == HEADER
    assert loaded.network.config == CONFIG
    assert not loaded.network.training
    assert loaded.content_hash == content_hash(path)
    torch.manual_seed(0)
    original = Taemi(CONFIG).eval()
    window = replace(FusionInputs.empty(SMALL), text=torch.ones(1, 6), text_present=torch.tensor([True]))
    assert torch.equal(loaded.network(window), original(window))
    assert all(p.device.type == "cpu" for p in loaded.network.parameters())


def test_the_header_is_read_alone(path: Path) -> None:
    assert read_header(path).scores == {"pearson": 0.5}


def test_nothing_is_left_beside_a_saved_file(path: Path) -> None:
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o444 == 0o444


def test_other_encoders_are_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="voice@2"):
        load_checkpoint(path, expect_encoders={**ENCODERS, "audio": "voice@2"})
    load_checkpoint(path, expect_encoders={"text": "words@1"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"emotions": ["joy"]}, "emotions"),
        ({"system": "transformer-xxl"}, "transformer-xxl"),
        ({"system": ["taemi"]}, "system is not text"),
        ({"config": {}}, "no shapes"),
        ({"config": {**HEADER.config, "colour": "red"}}, "unknown settings .'colour'"),
        ({"config": {**HEADER.config, "heads": 3}}, "heads 3"),
        ({"config": {**HEADER.config, "d_model": 10**12}}, "d_model is 1000000000000"),
        ({"config": {**HEADER.config, "d_model": 65536}}, "weights"),
        ({"config": {**HEADER.config, "shapes": {"text_dim": 6}}}, "impossible"),
        ({"modalities": ["text", "smell"]}, "modalities"),
        ({"modalities": []}, "modalities"),
        ({"encoders": {"text": "words@1"}}, "encoder .* audio"),
        ({"scores": 3}, "scores is not an object"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_header_that_is_wrong_is_refused(path: Path, change: dict[str, object], words: str) -> None:
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


WINDOW_17_GB = {"vision_frames": 65536, "vision_dim": 65536, "audio_frames": 1, "audio_dim": 1, "text_dim": 1}
WINDOW_1_GB = {"vision_frames": 1, "vision_dim": 1, "audio_frames": 4096, "audio_dim": 65536, "text_dim": 1}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shapes": WINDOW_17_GB}, "65536 frames of vision"),
        ({"shapes": WINDOW_1_GB}, "268435458 values"),
        ({"shapes": {**WINDOW_1_GB, "audio_frames": 1000}}, "8000000 values"),
        ({"d_model": 1024, "heads": 1024}, "1024 heads"),
    ],
)
def test_a_window_that_would_fill_the_memory_is_refused_before_it_is_made(
    path: Path, config: dict[str, object], words: str
) -> None:
    rewrite(path, {"config": {**HEADER.config, **config}})
    tracemalloc.start()
    try:
        for read in (read_header, load_checkpoint):
            with pytest.raises(CheckpointError, match=words):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("header", [1 << 40, (4 << 20) + 1, 2**64 - 1])
def test_a_header_longer_than_any_is_not_read(path: Path, header: int) -> None:
    with path.open("wb") as file:
        file.write(header.to_bytes(8, "little"))
        file.truncate(16 << 20)  # sparse
    with pytest.raises(CheckpointError, match=rf"{header} bytes"):
        load_checkpoint(path)
    with path.open("r+b") as file:
        file.truncate(3 << 30)
    with pytest.raises(CheckpointError, match="3221225472"):
        load_checkpoint(path)


def test_what_is_no_file_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    for place in (path.with_name("pipe"), Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="not a file"):
            load_checkpoint(place)


def test_names_in_a_file_cannot_steer_the_terminal(path: Path) -> None:
    weights = load_file(path)
    weights["a\x1b]0;owned\x07"] = torch.zeros(1)
    metadata = {f: getattr(HEADER, f) for f in HEADER.__dataclass_fields__}
    save_file(weights, path, metadata={"emi_checkpoint": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match=r"a\\x1b\]0;owned\\x07 is missing") as caught:
        load_checkpoint(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("metadata", ["", "[]", "null", "{", '{"format_version": 1}', "[" * 100_000])
def test_a_header_that_is_no_story_is_refused(path: Path, metadata: str) -> None:
    save_file(load_file(path), path, metadata={"emi_checkpoint": metadata})
    with pytest.raises(CheckpointError, match="understood"):
        load_checkpoint(path)


def test_plain_safetensors_are_refused(path: Path) -> None:
    save_file(load_file(path), path)
    with pytest.raises(CheckpointError, match="no emi-live checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, 2000, -1])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="readable checkpoint"):
        load_checkpoint(path)


def test_garbage_a_folder_and_nothing_are_refused(path: Path) -> None:
    path.write_bytes(b"\x80\x04cposix\nsystem\n" * 100)
    for bad in (path, path.parent, path.with_name("nothing")):
        with pytest.raises(CheckpointError, match=r"readable|found"):
            load_checkpoint(bad)


@pytest.mark.parametrize("spoil", ["missing", "unexpected", "shape", "nan", "half"])
def test_weights_that_do_not_fit_are_refused(path: Path, spoil: str) -> None:
    weights = load_file(path)
    if spoil == "missing":
        del weights["text.token"]
    elif spoil == "unexpected":
        weights["extra"] = torch.zeros(1)
    elif spoil == "shape":
        weights["text.token"] = torch.zeros(7)
    elif spoil == "nan":
        weights["text.token"][2] = float("nan")
    else:
        weights["text.token"] = weights["text.token"].half()
    metadata = {f: getattr(HEADER, f) for f in HEADER.__dataclass_fields__}
    save_file(weights, path, metadata={"emi_checkpoint": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match="extra" if spoil == "unexpected" else r"text\.token"):
        load_checkpoint(path)


def test_saving_refuses_a_contradiction_and_bad_weights(tmp_path: Path) -> None:
    net = Taemi(CONFIG)
    with pytest.raises(CheckpointError, match="not the network's"):
        save_checkpoint(tmp_path / "a", net, replace(HEADER, modalities=("text",)))
    with torch.no_grad():
        net.text.token[0] = float("inf")
    with pytest.raises(CheckpointError, match=r"text\.token"):
        save_checkpoint(tmp_path / "a", net, HEADER)
    assert list(tmp_path.iterdir()) == []


def test_the_packaged_checkpoint_is_what_the_package_says() -> None:
    loaded = load_checkpoint(packaged_checkpoint("compact"))
    assert loaded.header.modalities == ("vision", "audio", "text")
    assert loaded.header.encoders["text"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert packaged_checkpoint("compact").stat().st_size <= 3_000_000
    with pytest.raises(CheckpointError, match="huge"):
        packaged_checkpoint("huge")
