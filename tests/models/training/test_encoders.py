"""Trained encoders: the same features as live, alone or in two processes, saved whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emi_models import Modality
from emi_models.checkpoint import read_header, tuned_folder
from emi_models.data.batches import ClipWindows, collate, rated_clips
from emi_models.data.clip import Clip, FeatureTrack, Rating
from emi_models.data.dataset import ClipWriter, DatasetInfo, ManifestClips
from emi_models.data.media import ClipMedia, media_path, read_media, write_media
from emi_models.encoders.pretrained import TUNED
from emi_models.encoders.wav2vec import frame_ends_ns, identify_speech
from emi_models.errors import CheckpointError, DataError, TrainingError
from emi_models.inputs import FusionShapes
from emi_models.training.config import EncoderSettings, TrainConfig
from emi_models.training.encoders import (
    TrainedEncoders,
    encoder_folders,
    open_encoder,
)
from emi_models.training.evaluate import evaluate_checkpoint
from emi_models.training.fit import FitResult, fit
from emi_models.training.media_windows import MediaWindows, collate_media
from emi_models.training.predict import predict_split
from emi_models.training.reproduce import make_table
from emi_models.training.tables import find_table
from tests.models.data.folders import make_vidmimic
from tests.models.encoders.tiny_models import tiny_bert, tiny_speech, tiny_vit
from tests.models.training.sets import memory_set

pytest.importorskip("transformers", reason="the extra `taemi` is not installed")

ALL: tuple[Modality, ...] = ("vision", "audio", "text")
SPOKEN = ("proud", "wonderful", "surprise", "joy", "money", "today", "i", "am", "so")
CLIPS = 12
NETWORKS: dict[str, dict[str, Any]] = {
    "taemi": {"d_model": 16, "mlp_hidden": 16},
    "two_stage": {"hidden": 16, "fusion_hidden": 16},
    "dual_stage": {"shared": 16, "d_model": 16, "layers": 1, "tcn_layers": 2, "segments": 2},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Path]:
    root = tmp_path_factory.mktemp("models")
    tiny_vit(root / "vision")
    tiny_speech(root / "audio")
    tiny_bert(root / "text")
    return {modality: root / modality for modality in ALL}


@pytest.fixture(scope="module")
def data(models: dict[Modality, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of noise as `emi extract --keep-media` writes them; some lack words, sound or a face."""
    out = tmp_path_factory.mktemp("data")
    face, voice, text = (open_encoder(modality, models[modality]) for modality in ALL)
    encoders = dict(zip(ALL, (face, voice, text), strict=True))
    info = DatasetInfo(
        bundle="taemi",
        encoders={m: encoder.encoder_id for m, encoder in encoders.items()},
        shapes=FusionShapes(400, face.dim, 599, voice.dim, text.dim),
        description="noise",
        licence="none",
    )
    writer, rng, ratings = ClipWriter(out, info), np.random.default_rng(0), {}
    for i in range(CLIPS):
        samples = 300 if i == 5 else int(rng.uniform(0.2, 0.6) * 16_000)  # one too short for a frame
        sound = (0.1 * rng.standard_normal(samples)).astype(np.float32)
        faces = rng.integers(0, 255, (i % 3, 224, 224, 3)).astype(np.uint8)
        stamps = np.arange(i % 3, dtype=np.int64) * 100_000_000
        words = " ".join(rng.choice(SPOKEN, 1 + i % 5)) if i % 4 else ""
        frames = voice.encode(sound)  # type: ignore[arg-type]  # each encoder takes its own
        duration_ns = max(samples * 62_500, 150_000_000)
        said = (
            FeatureTrack(np.array([duration_ns // 2]), text.encode([words]))  # type: ignore[arg-type]
            if words
            else FeatureTrack.empty(text.dim)
        )
        clip = Clip(
            f"clip{i:02}",
            FeatureTrack(stamps, face.encode(faces)),  # type: ignore[arg-type]
            FeatureTrack(frame_ends_ns(len(frames)), frames),
            said,
            duration_ns,
        )
        writer.write(clip, transcript=words)
        write_media(media_path(out, clip.id), ClipMedia(sound, 0, faces, stamps))
        ratings[clip.id] = Rating(rng.random(6).astype(np.float32), "train" if i < 8 else "valid")
    writer.write_manifest(ratings)
    return out


def config(
    models: dict[Modality, Path],
    system: str = "taemi",
    train: tuple[Modality, ...] = ("audio", "text"),
    devices: int = 1,
    **encoders: Any,
) -> TrainConfig:
    training = {"max_epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "threads": 1, "devices": devices}
    chosen = {"train": train, "models": {m: models[m] for m in train}, **encoders}
    return TrainConfig.model_validate({"training": training, "network": NETWORKS[system], "encoders": chosen})


def trained(data: Path, out: Path, settings: TrainConfig, system: str = "taemi") -> FitResult:
    return fit(system, ManifestClips(data), out, settings)


def changed(base: Path, tuned: Path) -> set[str]:
    """The weights of a saved model that are not as they were."""
    before = {name.removeprefix("wav2vec2."): t for name, t in load_file(base / "model.safetensors").items()}
    after = load_file(tuned / "model.safetensors")
    return {name for name, t in after.items() if not torch.allclose(t, before[name], rtol=0, atol=1e-9)}


@pytest.mark.slow
def test_in_a_batch_they_give_the_features_that_live_encoders_gave_clip_by_clip(
    data: Path, models: dict[Modality, Path]
) -> None:
    clips = rated_clips(ManifestClips(data), 0.2, 0)
    encoders = TrainedEncoders(models, EncoderSettings(train=ALL)).eval()
    seen = MediaWindows(clips, "train", encoders)
    stored = ClipWindows(clips, "train")
    with torch.no_grad():
        window = encoders(collate_media([seen[i] for i in range(len(seen))])[0])
    expected, _ = collate([stored[i] for i in range(len(stored))])
    for modality in ("vision", "audio"):
        mask = getattr(expected, f"{modality}_mask")
        assert torch.equal(getattr(window, f"{modality}_mask"), mask)
        off = (getattr(window, modality) - getattr(expected, modality)) * mask[..., None]
        assert off.abs().max() < 1e-4
    assert ((window.text - expected.text) * expected.text_present[:, None]).abs().max() < 1e-4
    for modality in ALL:
        assert torch.equal(getattr(window, f"{modality}_present"), getattr(expected, f"{modality}_present"))


@pytest.mark.slow
def test_a_tuned_checkpoint_names_its_encoders_and_scores_as_in_training(
    data: Path, models: dict[Modality, Path], tmp_path: Path
) -> None:
    result = trained(data, tmp_path, config(models, checkpointing=True))
    header = read_header(result.checkpoint)
    for modality in ("audio", "text"):
        folder = tuned_folder(result.checkpoint, header, modality)
        assert folder is not None
        assert open_encoder(modality, folder).encoder_id == header.encoders[modality]
        assert header.encoders[modality] != open_encoder(modality, models[modality]).encoder_id
        assert changed(models[modality], folder)
    assert tuned_folder(result.checkpoint, header, "vision") is None
    found = evaluate_checkpoint(result.checkpoint, ManifestClips(data))
    assert found.tuned == ("audio", "text")
    assert found.whole.mean_pearson == pytest.approx(result.score, abs=1e-4)
    predicted = predict_split([result.checkpoint, result.checkpoint], ManifestClips(data), "valid")
    assert predicted.values.shape == (CLIPS - 8, 6)
    assert predicted.scores is not None
    pairs = zip(predicted.scores.mse, found.whole.mse, strict=True)
    assert sum(one == pytest.approx(other, abs=1e-4) for one, other in pairs) >= 4  # some are cut to [0, 1]
    shutil.rmtree(tmp_path / "encoders" / "audio")
    with pytest.raises(CheckpointError, match="encoders"):
        evaluate_checkpoint(result.checkpoint, ManifestClips(data))
    outside = replace(header, notes={**header.notes, "tuned_audio": "../audio"})
    with pytest.raises(CheckpointError, match="next to"):
        tuned_folder(result.checkpoint, outside, "audio")


@pytest.mark.slow
def test_frozen_layers_stay_and_lora_leaves_all_but_its_targets(
    data: Path, models: dict[Modality, Path], tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    some = trained(data, tmp_path / "some", config(models, frozen_layers={"audio": 1, "text": 0}))
    encoders = some.checkpoint.parent / "encoders"
    moved = changed(models["audio"], encoders / "audio")
    assert moved
    assert not {name for name in moved if "feature_" in name or "pos_conv" in name or "layers.0." in name}
    assert not {n for n in changed(models["text"], encoders / "text") if n.startswith("embeddings")}
    lora = trained(data, tmp_path / "lora", config(models, lora_rank=2))
    encoders = lora.checkpoint.parent / "encoders"
    assert {name.split(".")[-2] for name in changed(models["text"], encoders / "text")} == {"query", "value"}
    found = evaluate_checkpoint(lora.checkpoint, ManifestClips(data))
    assert found.whole.mean_pearson == pytest.approx(lora.score, abs=1e-4)
    with pytest.raises(TrainingError, match="layers"):
        TrainedEncoders(models, EncoderSettings(train=ALL, frozen_layers={"text": 3}))


@pytest.mark.slow
def test_stage_one_of_the_dual_network_trains_all_encoders_and_stage_two_none(
    data: Path, models: dict[Modality, Path], tmp_path: Path
) -> None:
    result = trained(data, tmp_path, config(models, "dual_stage", ALL), "dual_stage")
    assert (tmp_path / "stages/1-align/encoders.safetensors").is_file()
    assert not (tmp_path / "stages/2-fusion/encoders.safetensors").exists()
    for modality in ALL:
        assert changed(models[modality], tmp_path / "encoders" / modality)
    found = evaluate_checkpoint(result.checkpoint, ManifestClips(data))
    assert found.whole.mean_pearson == pytest.approx(result.score, abs=1e-4)


@pytest.mark.slow
def test_rows_of_a_table_train_the_encoders_that_they_have(
    data: Path, models: dict[Modality, Path], tmp_path: Path
) -> None:
    """One row has an encoder of text and no other; V of Dual-Stage has words in stage I."""
    training = {"max_epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "threads": 1}
    encoders = {"models": {m: str(models[m]) for m in ALL}, "frozen_layers": {"audio": 1, "text": 0}}
    small = {"vision_hidden": 8, "fusion_hidden": 8}
    for system, number, row, network, trained_here in (
        ("semantic_matters", 1, "† text", small, ("vision", "text")),
        ("dual_stage", 2, "Wav2Vec2.0 (ours)", NETWORKS["dual_stage"], ("audio", "text")),
    ):
        made = make_table(
            *find_table(system, number),
            data,
            tmp_path / system,
            settings={"training": training, "network": network, "encoders": encoders},
            only=[row],
            train_encoders=ALL,
            devices=["cpu"],
        )
        (only,) = made.rows
        assert only.why == ""
        assert f"encoders trained: {', '.join(trained_here)}" in only.notes
        assert any("trained with the network" in note for note in made.notes)
        (run,) = (tmp_path / system / "runs").iterdir()
        assert {path.name for path in (run / "encoders").iterdir()} == set(trained_here)
        for modality in trained_here:
            assert changed(models[modality], run / "encoders" / modality)  # type: ignore[index]  # modalities


def test_features_alone_train_no_encoder_for_a_table(tmp_path: Path) -> None:
    folder = make_vidmimic(tmp_path / "data")
    with pytest.raises(TrainingError, match="--keep-media"):
        make_table(*find_table("taemi", 4), folder, tmp_path / "out", train_encoders=("text",))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_what_one_does(data: Path, models: dict[Modality, Path], tmp_path: Path) -> None:
    """Each has half of a batch, and gradients are averaged; nothing is dropped out."""
    still: dict[Modality, Path] = {}
    for modality in ("audio", "text"):
        still[modality] = shutil.copytree(models[modality], tmp_path / modality)
        edit = json.loads((still[modality] / "config.json").read_text())
        edit |= {key: 0.0 for key in edit if "dropout" in key and key != "classifier_dropout"}
        (still[modality] / "config.json").write_text(json.dumps(edit))
    network = {"d_model": 16, "mlp_hidden": 16, "dropout": 0.0, "modality_dropout": 0.0}
    weights = []
    for devices in (1, 2):
        settings = config(still, devices=devices).model_copy(update={"network": network})
        result = trained(data, tmp_path / str(devices), settings)
        weights.append(load_file(result.checkpoint.parent / "stages/1-fusion/best.safetensors"))
        weights[-1] |= load_file(result.checkpoint.parent / "stages/1-fusion/encoders.safetensors")
        assert len(result.stages[0].history) == 1
    one, two = weights
    assert one.keys() == two.keys()
    # AdamW's first steps move a weight by the rate, 1e-2, whatever its gradient: rounding is enlarged.
    apart = torch.cat([(two[name].float() - tensor.float()).abs().flatten() for name, tensor in one.items()])
    assert float((apart <= 1e-3).float().mean()) > 0.99
    assert float(apart.max()) < 5e-3


def test_what_cannot_be_trained_is_refused(data: Path, models: dict[Modality, Path], tmp_path: Path) -> None:
    clips = rated_clips(ManifestClips(data), 0.2, 0)
    with pytest.raises(TrainingError, match="models"):
        encoder_folders(clips, EncoderSettings(train=("audio",)))
    other, _, _ = tiny_speech(tmp_path / "other", head=False)
    with pytest.raises(TrainingError, match="extracted"):
        encoder_folders(clips, EncoderSettings(train=("audio",), models={"audio": other}))
    with pytest.raises(TrainingError, match="keep-media"):
        MediaWindows(memory_set(), "train", TrainedEncoders({}, EncoderSettings()))
    with pytest.raises(DataError, match="keep-media"):
        read_media(tmp_path / "none.safetensors")
    with pytest.raises(TrainingError, match="multiple"):
        fit("taemi", ManifestClips(data), tmp_path / "run", config(models, devices=3))


def test_a_tuned_model_of_published_sizes_does_not_go_by_the_published_name(
    models: dict[Modality, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(models["audio"], tmp_path / "tuned")
    published = replace(identify_speech(folder), encoder_id="published/model")
    assert identify_speech(folder, published).encoder_id == "published/model"
    edit = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**edit, TUNED: "published/model"}))
    assert identify_speech(folder, published).encoder_id != "published/model"
