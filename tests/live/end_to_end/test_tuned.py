"""Trained encoders: better than the same ones frozen, and the same numbers live as in `emi eval`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emi_live import LiveEngine, load_config
from emi_live.extract.encoders import ClipEncoders, dims_of, load_settings
from emi_live.extract.recorder import record_clip
from emi_models import EMOTIONS, MODALITIES
from emi_models.checkpoint import load_checkpoint
from emi_models.data.batches import collate
from emi_models.data.clip import Clip
from emi_models.data.dataset import open_clips
from emi_models.store import ModelStore
from emi_models.training.fit import fit
from recipes.encoders.__main__ import compare
from recipes.encoders.__main__ import settings as settings_of
from recipes.encoders.corpus import Corpus, tiny_encoders, write_corpus
from tests.live.end_to_end.support import first_seconds
from tests.models.speech.tiny_whisper import make_tiny_whisper

pytest.importorskip("espeakng_loader", reason="the extra `bench` is not installed")
pytest.importorskip("transformers", reason="the extra `taemi` is not installed")
pytestmark = [pytest.mark.assets, pytest.mark.slow, pytest.mark.timeout(900)]

CLIP = "av/face_and_speech.mp4"
SHOWN_S = 3.0


def test_trained_encoders_beat_the_same_encoders_frozen(tmp_path: Path) -> None:
    """On speech by eSpeak NG and drawn faces: the same start and epochs; above the spread of the seeds."""
    corpus = Corpus(train=128, valid=48, words=2)
    variants = ("frozen", "text trained")  # audio takes longer: `python -m recipes.encoders` has it
    found = compare(tmp_path, corpus, seeds=2, epochs=15, console=None, variants=variants)
    frozen, trained = ([run["mean"] for run in found[name]] for name in variants)
    spread = max(max(frozen) - min(frozen), max(trained) - min(trained))
    assert min(trained) - max(frozen) > spread


def test_trained_encoders_give_live_what_they_give_in_emi_eval(assets: Path, tmp_path: Path) -> None:
    encoders = tiny_encoders(tmp_path / "models")
    write_corpus(Corpus(train=12, valid=4), encoders, tmp_path / "data")
    tuned = settings_of(encoders, ("audio", "text"), epochs=1, seed=0)
    checkpoint = fit("taemi", open_clips(tmp_path / "data"), tmp_path / "run", tuned).checkpoint
    whisper = make_tiny_whisper(tmp_path / "whisper", "apple basket candle", 1.0)
    header = load_checkpoint(checkpoint).header
    expected = evaluated(checkpoint, recorded(assets, checkpoint, encoders["vision"], whisper))

    config = load_config(
        None,
        [
            f"source.input={first_seconds(assets / CLIP, SHOWN_S + 0.6, tmp_path)}",
            f"fusion.checkpoint={checkpoint}",
            f"face.model={encoders['vision']}",  # was not trained, and is no published one
            f"duration_s={SHOWN_S}",
            "bundle=taemi",
            *settings(assets, whisper),
        ],
    )
    with LiveEngine(config) as live:
        *_, last = live.estimates()
        said = "\n".join(live.announcements)
    line = last.to_json()
    assert line["t"] == SHOWN_S
    assert {report["state"] for report in line["modalities"].values()} == {"live"}
    for modality in ("audio", "text"):  # by the folders that the checkpoint names
        assert header.encoders[modality] in said
    shown = [line["intensities"][emotion] for emotion in EMOTIONS]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-4)


def settings(assets: Path, whisper: Path) -> list[str]:
    return [
        "audio.context=cached",
        "speech.backend=whisper",
        f"speech.model={whisper}",
        f"models.directory={assets / 'mediapipe'}",
        "models.offline=true",
    ]


def recorded(assets: Path, checkpoint: Path, face: Path, whisper: Path) -> Clip:
    """The clip as `emi extract` gives it with the encoders that were trained."""
    folders = checkpoint.parent / "encoders"
    chosen = load_settings(
        "taemi",
        seconds=SHOWN_S,
        settings=[
            *[name for name in settings(assets, whisper) if name != "models.offline=true"],
            f"face.model={face}",
            f"audio.model={folders / 'audio'}",
            f"text.model={folders / 'text'}",
        ],
        offline=True,
    )
    encoders = ClipEncoders(chosen, ModelStore(assets / "mediapipe", offline=True))
    found = record_clip(
        assets / CLIP, chosen.live, encoders.stages, dims_of(encoders.shapes), chosen.until_ns
    ).recording
    encoders.close()
    vision, audio, text = (found.tracks[m] for m in MODALITIES)
    return Clip("clip", vision, audio, text, found.duration_ns)


def evaluated(checkpoint: Path, clip: Clip) -> list[float]:
    """What `emi eval` computes for the clip, as live use shows it: cut to [0, 1]."""
    network = load_checkpoint(checkpoint).network
    window = clip.window(network.config.shapes, round(SHOWN_S * 1e9))
    with torch.inference_mode():
        predicted: list[float] = network(collate([(window, torch.zeros(1))])[0]).clamp(0, 1)[0].tolist()
    return predicted
