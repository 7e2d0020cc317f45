"""A third bundle, of one class and one registration, runs in the engine and is known to every command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from emi_live import LiveConfig, LiveEngine, load_config
from emi_live.bundle import (
    Bundle,
    Encoders,
    bundle_names,
    default_bundle,
    find_bundle,
    register,
    unregister,
)
from emi_live.cli.privacy import facts, models_wanted
from emi_live.errors import ConfigurationError
from emi_live.extract.encoders import load_settings
from emi_models import MODALITIES
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.text import GTE_BASE
from emi_models.encoders.vit import VIT_BASE
from emi_models.encoders.wav2vec import AUDEERING
from emi_models.inputs import COMPACT_SHAPES, FusionShapes
from emi_models.store import CATALOGUE, ModelStore
from tests.live.stages.fakes import BrightnessFace

if TYPE_CHECKING:
    from emi_live.flow import Flow
    from emi_live.stages import Stage
    from emi_models.store import ModelStore, Progress


class Tiny(Bundle):
    """The brightness of a frame stands for the face; there is no other encoder."""

    name = "tiny"
    encoder_ids = COMPACT_ENCODERS
    own_settings = {"face": frozenset({"crop_fps"})}  # noqa: RUF012 # as `taemi`, which shares it
    extract_settings = ("speech.model=tiny.en",)
    models = {"text": ("all-minilm-l6-v2",)}  # noqa: RUF012
    checkpoint = "compact"

    @property
    def shapes(self) -> FusionShapes:
        return COMPACT_SHAPES

    def load_vision(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        encoders.face = BrightnessFace()
        encoders.announcements.append("vision: brightness")

    def load_audio(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        encoders.unavailable["audio"] = "the bundle tiny has no encoder of audio"

    def load_text(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        encoders.unavailable["text"] = "the bundle tiny has no encoder of text"

    def vision_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        from emi_live.stages.vision import FaceStage

        assert encoders.face is not None
        return FaceStage(flow.video.reader(), encoders.face, flow.config.face, flow.health)

    def audio_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        return None


@pytest.fixture
def tiny() -> Iterator[Bundle]:
    bundle = Tiny()
    register(bundle)
    yield bundle
    unregister(bundle.name)


def test_a_third_bundle_runs_in_the_engine(tiny: Bundle) -> None:
    settings = {"bundle": "tiny", "mode": "exact", "speech": {"backend": "none"}, "models": {"offline": True}}
    picture = np.full((48, 64, 3), 128, np.uint8)
    with LiveEngine(LiveConfig.model_validate(settings)) as live:
        live.end_audio()
        for index in range(10):
            live.push_frame(picture, index * 10**8)
        live.end()
        estimates = list(live.estimates())
    assert {estimate.bundle for estimate in estimates} == {"tiny"}
    assert estimates[-1].to_json()["modalities"]["vision"]["state"] == "live"


def test_settings_and_commands_know_a_third_bundle(tiny: Bundle, tmp_path: Path) -> None:
    assert bundle_names() == ("compact", "taemi", "tiny")
    config = load_config(None, ["bundle=tiny", "face.crop_fps=5", "source.camera=0"])
    assert models_wanted(config, ModelStore(tmp_path)) == ["whisper-base", "all-minilm-l6-v2"]
    assert any("compact.safetensors" in fact.what for fact in facts(config))
    assert load_settings("tiny").live.speech.model == "tiny.en"
    with pytest.raises(ConfigurationError, match=r"audio\.hop_s"):
        load_config(None, ["bundle=tiny", "audio.hop_s=1.0"])


def test_a_name_is_registered_once(tiny: Bundle) -> None:
    with pytest.raises(ValueError, match="tiny"):
        register(Tiny())


def test_an_unknown_bundle_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="compact, taemi"):
        load_config(None, ["bundle=tiny"])


@pytest.mark.parametrize("name", ["compact", "taemi"])
def test_what_a_bundle_says_of_itself_fits_the_catalogue_and_the_settings(name: str) -> None:
    bundle = find_bundle(name)
    of_it = {entry.name for entry in CATALOGUE.values() if entry.bundle == name}
    assert of_it <= bundle.model_names <= CATALOGUE.keys()
    for section, names in bundle.own_settings.items():
        assert names <= type(getattr(LiveConfig(), section)).model_fields.keys()
    assert bundle.encoder_ids.keys() in (set(), set(MODALITIES))


def test_the_models_of_taemi_are_those_of_its_encoders() -> None:
    models = find_bundle("taemi").models
    assert models["vision"][-1] == VIT_BASE.store_name
    assert models["audio"] == (AUDEERING.store_name,)
    assert models["text"] == (GTE_BASE.store_name,)


def test_the_default_bundle_is_the_one_of_the_settings() -> None:
    assert default_bundle().name == LiveConfig().bundle
