"""The paper's bundle: a vision transformer's view of the face, wav2vec 2.0, and a text model's [CLS].

Each comes from the model store, or from a folder that a setting names and that may hold a model of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from emi_live.bundle.encoders import Encoders
from emi_live.bundle.shared import load_face
from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError
from emi_models import Modality
from emi_models.encoders.identity import identify_face, identify_speech, identify_text
from emi_models.encoders.text import GTE_BASE, TransformerTextEncoder
from emi_models.encoders.vit import VIT_BASE, VitEncoder
from emi_models.encoders.wav2vec import AUDEERING, Wav2vecEncoder
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from emi_models.store import ModelStore, Progress

__all__ = ["AUDEERING_TERMS", "load_text", "load_vision", "load_voice"]

WARM_SAMPLES: Final = 8_000
AUDEERING_TERMS: Final = "features of audeering's wav2vec 2.0 are under CC BY-NC-SA 4.0: research only"

Encoder = TypeVar("Encoder", VitEncoder, Wav2vecEncoder, TransformerTextEncoder)


def load_vision(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put in what finds the face and what encodes it, or say why not."""
    load_face(encoders, config, store, progress)
    crops = _load(
        encoders,
        "vision",
        config.face.model,
        lambda folder: VitEncoder(folder, identify_face(folder)),
        lambda: VitEncoder(store.locate(VIT_BASE.store_name, progress)),
    )
    if crops is None or encoders.face is None:
        return
    encoders.crops = crops
    crops.encode(np.zeros((1, crops.side_px, crops.side_px, 3), np.uint8))  # the first one takes seconds
    _note(
        encoders,
        "vision",
        crops,
        f"{crops.dim} columns, {config.face.crop_fps:g} faces a second, found by MediaPipe Face Landmarker",
    )


def load_voice(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the speech model in, or say why there is none."""
    voice = encoders.voice = _load(
        encoders,
        "audio",
        config.audio.model,
        lambda folder: Wav2vecEncoder(folder, identify_speech(folder)),
        lambda: Wav2vecEncoder(store.locate(AUDEERING.store_name, progress)),
    )
    if voice is None:
        return
    voice.encode(np.zeros(WARM_SAMPLES, np.float32))
    audio = config.audio
    how = (
        "the last 12 s heard at once"
        if audio.context == "full"
        else f"{audio.context}: each {audio.hop_s:g} s, {audio.left_context_s:g} s back, "
        f"{audio.hold_back_s:g} s held back"
    )
    _note(encoders, "audio", voice, f"{voice.dim} columns at 50 Hz ({how}), voice gate Silero VAD v6")
    if voice.encoder_id == AUDEERING.encoder_id:
        encoders.terms.append(AUDEERING_TERMS)
        encoders.announcements.append(f"licence: {AUDEERING_TERMS}")


def load_text(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the text model in, or say why there is none."""
    allowed = config.text.allow_remote_code
    text = encoders.sentence = _load(
        encoders,
        "text",
        config.text.model,
        lambda folder: TransformerTextEncoder(folder, identify_text(folder), allow_remote_code=allowed),
        lambda: TransformerTextEncoder(store.locate(GTE_BASE.store_name, progress)),
    )
    if text is not None:
        _note(encoders, "text", text, f"{text.dim} columns, [CLS]")


def _load(
    encoders: Encoders,
    modality: Modality,
    named: Path | None,
    from_folder: Callable[[Path], Encoder],
    from_store: Callable[[], Encoder],
) -> Encoder | None:
    """What a setting names must be there; without one, what the store cannot give is told of."""
    if named is not None:
        folder = named.expanduser()
        if not folder.is_dir():
            raise ConfigurationError(f"there is no folder {folder} to load the encoder of {modality} from")
        return from_folder(folder)
    try:
        return from_store()
    except EmiError as error:
        encoders.unavailable.setdefault(modality, str(error))
        return None


def _note(
    encoders: Encoders,
    modality: Modality,
    encoder: VitEncoder | Wav2vecEncoder | TransformerTextEncoder,
    how: str,
) -> None:
    encoders.ids[modality] = encoder.encoder_id
    encoders.dims[modality] = encoder.dim
    encoders.announcements.append(f"{modality}: {encoder.encoder_id}, {how}")
