"""The paper's bundle with tiny random models in place of its own, through the real stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_live.clock import NS_PER_S
from emi_live.errors import SourceError
from emi_live.extract.encoders import dims_of
from emi_live.extract.record import record_clip
from emi_live.extract.recorder import Recording
from emi_live.extract.settings import ExtractSettings, load_settings
from emi_live.extract.taemi import TaemiEncoders, TaemiSpecs
from emi_models.encoders.wav2vec import Wav2vecEncoder, frame_ends_ns
from emi_models.store import ModelStore
from emi_models.vocabulary import Modality
from tests.models.encoders.media import read_sound
from tests.models.encoders.tiny_models import BERT, SPEECH, VIT, tiny_bert, tiny_speech, tiny_vit

pytestmark = pytest.mark.assets

TINY = TaemiSpecs(vision=VIT, audio=SPEECH, text=BERT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Path]:
    root = tmp_path_factory.mktemp("models")
    tiny_vit(root / "vit")
    tiny_speech(root / "speech")
    tiny_bert(root / "bert")
    return {"vision": root / "vit", "audio": root / "speech", "text": root / "bert"}


@pytest.fixture(scope="module")
def encoders(assets: Path, folders: dict[Modality, Path]) -> Iterator[tuple[TaemiEncoders, ExtractSettings]]:
    pytest.importorskip("pocketsphinx", reason="the `offline` extra is not installed")
    options = [f"encoders.{modality}={folder}" for modality, folder in folders.items()]
    settings = load_settings("taemi", seconds=3, settings=["speech.backend=pocketsphinx", *options])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `emi extract` does: how many share a sum shows in its last bits
    loaded = TaemiEncoders(settings, ModelStore(assets / "mediapipe", offline=True), TINY)
    yield loaded, settings
    loaded.close()
    torch.set_num_threads(threads)


def record(path: Path, encoders: tuple[TaemiEncoders, ExtractSettings]) -> Recording:
    loaded, settings = encoders
    loaded.forget()
    return record_clip(
        path, settings.live, loaded.stages, dims_of(loaded.shapes), settings.until_ns
    ).recording


def test_it_says_what_runs(encoders: tuple[TaemiEncoders, ExtractSettings]) -> None:
    loaded, _ = encoders
    assert loaded.ids == {"vision": "tiny/vit", "audio": "tiny/wav2vec2", "text": "tiny/bert"}
    assert loaded.recognizer == "pocketsphinx en-us"
    assert "words: pocketsphinx en-us" in loaded.announcements
    assert (loaded.shapes.vision_dim, loaded.shapes.audio_dim, loaded.shapes.text_dim) == (32, 35, 32)
    assert not loaded.unavailable


def test_a_face_is_encoded_six_times_a_second_and_the_whole_sound_fifty_times(
    assets: Path, encoders: tuple[TaemiEncoders, ExtractSettings]
) -> None:
    recording = record(assets / "av/face_and_speech.mp4", encoders)
    vision, audio = recording.tracks["vision"], recording.tracks["audio"]
    assert recording.duration_ns == 3 * NS_PER_S
    assert vision.values.shape == (19, 32)  # 0 s and 3 s included
    assert np.allclose(np.diff(vision.t_ns), NS_PER_S / 6, atol=1e6)
    assert audio.values.shape == (149, 35)
    assert np.ptp(vision.values, axis=0).max() > 0.01  # faces differ


def test_words_are_embedded_when_they_are_known(
    assets: Path, encoders: tuple[TaemiEncoders, ExtractSettings]
) -> None:
    recording = record(assets / "speech/english_one_two_three.wav", encoders)
    text = recording.tracks["text"]
    assert recording.transcript
    assert text.values.shape[1] == 32
    assert text.values[-1].any()
    assert text.t_ns[-1] <= recording.duration_ns


def test_words_of_a_clip_that_goes_on_end_where_reading_does(
    assets: Path, encoders: tuple[TaemiEncoders, ExtractSettings]
) -> None:
    """The recogniser is asked when an utterance is over, which this one is not in the first 3 s."""
    recording = record(assets / "speech/LJ001-0004.wav", encoders)
    assert len(recording.transcript.split()) > 3
    assert recording.tracks["text"].t_ns.tolist() == [pytest.approx(3 * NS_PER_S, abs=1e6)]


def test_the_sound_of_a_clip_gives_the_encoders_own_numbers(
    assets: Path, folders: dict[Modality, Path], encoders: tuple[TaemiEncoders, ExtractSettings]
) -> None:
    path = assets / "speech/librivox_sense_0880.wav"
    track = record(path, encoders).tracks["audio"]
    features = Wav2vecEncoder(folders["audio"], SPEECH).encode(read_sound(path)[: 3 * 16_000])
    assert np.array_equal(track.t_ns, frame_ends_ns(len(features)))
    assert np.array_equal(track.values, features)


def test_a_clip_without_a_wanted_stream_is_refused(assets: Path, folders: dict[Modality, Path]) -> None:
    options = [f"encoders.vision={folders['vision']}"]
    settings = load_settings("taemi", without=["audio", "text"], settings=options)
    loaded = TaemiEncoders(settings, ModelStore(assets / "mediapipe", offline=True), TINY)
    with pytest.raises(SourceError, match="nothing to analyse"):
        record(assets / "speech/english_one_two_three.wav", (loaded, settings))
    loaded.close()


def test_an_encoder_that_is_not_there_is_named_with_what_to_fetch(assets: Path, tmp_path: Path) -> None:
    settings = load_settings("taemi", without=["vision"], settings=["speech.backend=pocketsphinx"])
    loaded = TaemiEncoders(settings, ModelStore(tmp_path, offline=True))
    assert set(loaded.unavailable) == {"audio", "text"}
    assert "emi models pull" in loaded.unavailable["audio"]
    assert (loaded.shapes.vision_dim, loaded.shapes.audio_dim) == (1, 1)
    loaded.close()
