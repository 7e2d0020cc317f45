"""Loads one bundle's encoders for the streams that can come."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from emi_engine.load import Step, no_step
from emi_live.bundle.encoders import Encoders
from emi_live.bundle.shared import load_speech
from emi_live.config import LiveConfig

if TYPE_CHECKING:
    from emi_models.store import ModelStore, Progress

__all__ = ["load_encoders"]


def load_encoders(
    config: LiveConfig,
    store: ModelStore,
    *,
    vision: bool,
    audio: bool,
    progress: Progress | None = None,
    step: Step = no_step,
) -> Encoders:
    """Load the encoders of `config.bundle` for the streams that can come.

    Weights that are not on the machine are fetched into the store unless it is offline; those that cannot be
    had make their modality unavailable. A folder that a setting names must hold what it is named for. `step`
    is entered around each model.

    Raises:
        ConfigurationError: a folder that a setting names is none.
        ModelUnavailableError: a file is not in such a folder, or it needs code that may not run.
        ModelIntegrityError: it holds another kind of model, or a damaged one.
    """
    if config.bundle == "compact":
        from emi_live.bundle import compact

        # All of them, so that a checkpoint of another bundle is refused whatever runs here.
        encoders = Encoders(ids=dict(compact.COMPACT_IDS), dims=dict(compact.COMPACT_DIMS))
        own: ModuleType = compact
    else:
        from emi_live.bundle import taemi

        encoders, own = Encoders(), taemi
    try:
        if vision:
            if config.face.enabled:
                with step("loading the face model"):
                    own.load_vision(encoders, config, store, progress)
            else:
                encoders.unavailable["vision"] = "switched off by face.enabled=false"
        if audio:
            _load_sound(encoders, own, config, store, progress, step)
    except BaseException:
        encoders.close()
        raise
    return encoders


def _load_sound(
    encoders: Encoders,
    own: ModuleType,
    config: LiveConfig,
    store: ModelStore,
    progress: Progress | None,
    step: Step,
) -> None:
    """Put in what hears the voice and the words."""
    from emi_models.encoders.voice_activity import VoiceGate

    encoders.voice_gate = VoiceGate
    if config.audio.enabled:
        with step("loading the voice model"):
            own.load_voice(encoders, config, store, progress)
    else:
        encoders.unavailable["audio"] = "switched off by audio.enabled=false"
    if config.speech.backend == "none":
        encoders.unavailable["text"] = "switched off by speech.backend=none"
        return
    with step("loading the words model"):
        load_speech(encoders, config, store, progress)
    if encoders.recognizer is not None:
        with step("loading the sentence model"):
            own.load_text(encoders, config, store, progress)
