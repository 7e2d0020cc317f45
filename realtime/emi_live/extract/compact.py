"""The compact bundle for extraction: the encoders and stages of live use, as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from emi_live.bundle import load_encoders
from emi_live.extract.settings import ExtractSettings
from emi_live.flow import Flow, stages_of
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.inputs import COMPACT_SHAPES, FusionShapes
from emi_models.vocabulary import Modality

if TYPE_CHECKING:
    from emi_live.stages import Stage
    from emi_models.store import ModelStore

__all__ = ["CompactEncoders"]


class CompactEncoders:
    """MediaPipe, prosody, a recogniser and MiniLM, one clip after the other."""

    def __init__(self, settings: ExtractSettings, store: ModelStore) -> None:
        """Load those that are wanted."""
        wanted = settings.wanted
        self._encoders = load_encoders(
            settings.live, store, vision="vision" in wanted, audio="audio" in wanted or "text" in wanted
        )
        self.ids: Mapping[Modality, str] = {modality: COMPACT_ENCODERS[modality] for modality in wanted}
        self.shapes: FusionShapes = replace(
            COMPACT_SHAPES, **{f"{modality}_dim": 1 for modality in settings.without}
        )
        recognizer = self._encoders.recognizer
        self.recognizer = recognizer.name if recognizer is not None else ""
        self.terms: Sequence[str] = ()
        self.announcements: Sequence[str] = self._encoders.announcements
        self.unavailable: Mapping[str, str] = {
            modality: reason for modality, reason in self._encoders.unavailable.items() if modality in wanted
        }

    def stages(self, flow: Flow) -> Sequence[Stage]:
        """Those of live use for the streams that the clip has."""
        used = self._encoders
        if not flow.streams["video"]:
            used = replace(used, face=None)
        if not flow.streams["audio"]:
            used = replace(used, prosody=None, recognizer=None)
        return stages_of(used, flow)

    def forget(self) -> None:
        """Drop all that was seen and heard."""
        self._encoders.forget()

    def close(self) -> None:
        """Release what is held."""
        self._encoders.close()
