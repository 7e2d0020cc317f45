"""The paper's bundle with tiny random models in place of its own, through the real stages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_live.bundle import SECTION_OF
from emi_live.clock import NS_PER_S
from emi_live.config import SourceConfig
from emi_live.errors import SourceError
from emi_live.extract.encoders import ClipEncoders, ExtractSettings, dims_of, load_settings
from emi_live.extract.recorder import Recording, record_clip
from emi_live.live import LiveEngine
from emi_models import Modality
from emi_models.encoders.text import identify_text
from emi_models.encoders.vit import identify_face
from emi_models.encoders.wav2vec import Wav2vecEncoder, frame_ends_ns, identify_speech
from emi_models.inputs import FusionShapes
from emi_models.store import ModelStore
from tests.live.end_to_end.support import first_seconds
from tests.live.extract.support import KeepingEngine
from tests.models.encoders.media import read_sound
from tests.models.encoders.tiny_models import tiny_bert, tiny_speech, tiny_vit

pytestmark = pytest.mark.assets

Loaded = tuple[ClipEncoders, ExtractSettings]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Path]:
    root = tmp_path_factory.mktemp("models")
    tiny_vit(root / "vit")
    tiny_speech(root / "speech")
    tiny_bert(root / "bert")
    return {"vision": root / "vit", "audio": root / "speech", "text": root / "bert"}


def load(assets: Path, folders: dict[Modality, Path], *settings: str) -> Loaded:
    options = [f"{SECTION_OF[modality]}.model={folder}" for modality, folder in folders.items()]
    chosen = load_settings("taemi", seconds=3, settings=["speech.backend=pocketsphinx", *options, *settings])
    return ClipEncoders(chosen, ModelStore(assets / "mediapipe", offline=True)), chosen


@pytest.fixture(scope="module")
def encoders(assets: Path, folders: dict[Modality, Path]) -> Iterator[Loaded]:
    pytest.importorskip("pocketsphinx", reason="the extra `pocketsphinx` is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `emi extract` does: how many share a sum shows in its last bits
    loaded = load(assets, folders)
    yield loaded
    loaded[0].close()
    torch.set_num_threads(threads)


def record(path: Path, encoders: Loaded) -> Recording:
    loaded, settings = encoders
    loaded.forget()
    return record_clip(
        path, settings.live, loaded.stages, dims_of(loaded.shapes), settings.until_ns
    ).recording


@pytest.mark.slow
def test_it_says_what_runs(encoders: Loaded, folders: dict[Modality, Path]) -> None:
    loaded, _ = encoders
    assert loaded.ids == {
        "vision": identify_face(folders["vision"]).encoder_id,
        "audio": identify_speech(folders["audio"]).encoder_id,
        "text": identify_text(folders["text"]).encoder_id,
    }
    assert not loaded.terms  # none of them is audeering's
    assert loaded.recognizer == "pocketsphinx en-us"
    assert "words: pocketsphinx en-us" in loaded.announcements
    assert (loaded.shapes.vision_dim, loaded.shapes.audio_dim, loaded.shapes.text_dim) == (32, 35, 32)
    assert not loaded.unavailable


@pytest.mark.slow
def test_a_face_is_encoded_six_times_a_second_and_the_whole_sound_fifty_times(
    assets: Path, encoders: Loaded
) -> None:
    recording = record(assets / "av/face_and_speech.mp4", encoders)
    vision, audio = recording.tracks["vision"], recording.tracks["audio"]
    assert recording.duration_ns == 3 * NS_PER_S
    assert vision.values.shape == (19, 32)  # 0 s and 3 s included
    assert np.allclose(np.diff(vision.t_ns), NS_PER_S / 6, atol=1e6)
    assert audio.values.shape == (149, 35)
    assert np.ptp(vision.values, axis=0).max() > 0.01  # faces differ


@pytest.mark.slow
def test_words_are_embedded_when_they_are_known(assets: Path, encoders: Loaded) -> None:
    recording = record(assets / "speech/english_one_two_three.wav", encoders)
    text = recording.tracks["text"]
    assert recording.transcript
    assert text.values.shape[1] == 32
    assert text.values[-1].any()
    assert text.t_ns[-1] <= recording.duration_ns


@pytest.mark.slow
def test_words_of_a_clip_that_goes_on_end_where_reading_does(assets: Path, encoders: Loaded) -> None:
    """The recogniser is asked when an utterance is over, which this one is not in the first 3 s."""
    recording = record(assets / "speech/LJ001-0004.wav", encoders)
    assert len(recording.transcript.split()) > 3
    assert recording.tracks["text"].t_ns.tolist() == [pytest.approx(3 * NS_PER_S, abs=1e6)]


@pytest.mark.slow
def test_the_sound_of_a_clip_gives_the_encoders_own_numbers(
    assets: Path, folders: dict[Modality, Path], encoders: Loaded
) -> None:
    path = assets / "speech/librivox_sense_0880.wav"
    track = record(path, encoders).tracks["audio"]
    features = Wav2vecEncoder(folders["audio"], identify_speech(folders["audio"])).encode(
        read_sound(path)[: 3 * 16_000]
    )
    assert np.array_equal(track.t_ns, frame_ends_ns(len(features)))
    assert np.array_equal(track.values, features)


class TinyEngine(KeepingEngine):
    """Of the sizes of the tiny models."""

    @property
    def shapes(self) -> FusionShapes:
        return FusionShapes(400, 32, 599, 35, 32)


@pytest.mark.slow
def test_what_is_extracted_is_what_a_live_window_holds(
    assets: Path, folders: dict[Modality, Path], tmp_path: Path
) -> None:
    """To the last bit: the same stages, and batches that depend on capture times alone."""
    clip = assets / "av/face_lost_4s_to_8s_speech_throughout.mp4"
    torch.set_num_threads(1)
    settings = load_settings(
        "taemi",
        without=["text"],
        seconds=3,
        settings=[
            "audio.context=cached",
            f"face.model={folders['vision']}",
            f"audio.model={folders['audio']}",
            f"models.directory={assets / 'mediapipe'}",
        ],
    )
    loaded = ClipEncoders(settings, ModelStore(assets / "mediapipe", offline=True))
    tracks = record(clip, (loaded, settings)).tracks
    loaded.close()
    source = SourceConfig(input=first_seconds(clip, 3.6, tmp_path))
    config = settings.live.model_copy(update={"source": source, "duration_s": 3.0})
    engine = TinyEngine()
    with LiveEngine(config, engine=engine) as live:
        assert len(list(live.estimates())) == 15
    window = engine.windows[-1]
    for frames, mask, track, count in (
        (window.vision, window.vision_mask, tracks["vision"], 19),
        (window.audio, window.audio_mask, tracks["audio"], 149),
    ):
        assert mask.sum() == len(track.values) == count
        assert np.array_equal(frames[0, :count].numpy(), track.values)


@pytest.mark.slow
def test_clips_at_once_have_the_features_that_each_has_alone(assets: Path, encoders: Loaded) -> None:
    loaded, settings = encoders
    names = ("av/face_and_speech.mp4", "speech/english_one_two_three.wav")
    alone = [record(assets / name, encoders) for name in names]
    lanes = loaded.for_several(len(names))
    with ThreadPoolExecutor(len(names)) as threads:
        paths = [assets / name for name in names]
        together = list(threads.map(record, paths, [(lane, settings) for lane in lanes]))
    for lane in lanes:
        lane.close()
    for one, other in zip(alone, together, strict=True):
        assert other.transcript == one.transcript
        for modality, track in one.tracks.items():
            found = other.tracks[modality]
            assert np.array_equal(found.t_ns, track.t_ns)
            scale = np.abs(track.values).max(initial=0.0)
            assert np.abs(found.values - track.values).max(initial=0.0) <= 1e-5 * scale


def test_a_clip_without_a_wanted_stream_is_refused(assets: Path, folders: dict[Modality, Path]) -> None:
    settings = load_settings("taemi", without=["audio", "text"], settings=[f"face.model={folders['vision']}"])
    loaded = ClipEncoders(settings, ModelStore(assets / "mediapipe", offline=True))
    with pytest.raises(SourceError, match="nothing to analyse"):
        record(assets / "speech/english_one_two_three.wav", (loaded, settings))
    loaded.close()


def test_an_encoder_that_is_not_there_is_named_with_what_to_fetch(tmp_path: Path) -> None:
    settings = load_settings("taemi", without=["vision"], settings=["speech.backend=pocketsphinx"])
    loaded = ClipEncoders(settings, ModelStore(tmp_path, offline=True))
    assert set(loaded.unavailable) == {"audio", "text"}
    assert "emi models pull" in loaded.unavailable["audio"]
    assert (loaded.shapes.vision_dim, loaded.shapes.audio_dim) == (1, 1)
    loaded.close()
