"""What decides what features are: the bundle, its encoders' settings, and how much of a clip is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from emi_live.bundle import SECTION_OF, find_bundle
from emi_live.clock import seconds_to_ns
from emi_live.config import LiveConfig, load_config
from emi_live.errors import ConfigurationError
from emi_live.messages import END_OF_STREAM
from emi_models import MODALITIES, Modality

__all__ = ["ExtractSettings", "load_settings"]

VERSION: Final = 2  # of the features; one more when the same settings give other numbers
SECTIONS: Final = ("face", "audio", "speech", "text", "window", "models")  # that mean something here

# Settings that change no feature: what live use alone heeds.
NO_FEATURE: Final = {"smaller_model", "threads", "lag_budget_s", "no_data_s", "drift_every_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """How clips are made into features."""

    live: LiveConfig = field(default_factory=LiveConfig)
    without: frozenset[Modality] = frozenset()
    seconds: float | None = 12.0  # how much of a longer clip is kept; None = all

    @property
    def bundle(self) -> str:
        """Which encoders."""
        return self.live.bundle

    @property
    def folders(self) -> Mapping[Modality, Path]:
        """Encoders that lie outside the model store, as settings name them."""
        named = {modality: getattr(self.live, section) for modality, section in SECTION_OF.items()}
        return {modality: config.model for modality, config in named.items() if config.model is not None}

    @property
    def wanted(self) -> tuple[Modality, ...]:
        """The modalities to extract."""
        return tuple(modality for modality in MODALITIES if modality not in self.without)

    @property
    def until_ns(self) -> int:
        """What is newer, from the clip's start, is left out."""
        return END_OF_STREAM if self.seconds is None else seconds_to_ns(self.seconds)

    def fingerprint(self, encoders: Mapping[Modality, str], recognizer: str) -> str:
        """The same 16 letters for the same features of the same file.

        Args:
            encoders: the encoder that runs, by modality.
            recognizer: the speech recogniser that runs, "" for none.
        """
        live = self.live
        facts: dict[str, Any] = {
            "version": VERSION,
            "bundle": self.bundle,
            "encoders": dict(encoders),
            "recognizer": recognizer,
            "seconds": self.seconds,
            "window_s": live.window.length_s,
            **{
                name: getattr(live, name).model_dump(mode="json", exclude=NO_FEATURE)
                for name in ("face", "audio", "speech", "text")
            },
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load_settings(
    bundle: str | None = None,
    *,
    without: Sequence[str] = (),
    seconds: float = 12.0,
    preset: str | None = None,
    settings: Sequence[str] = (),
    offline: bool = False,
) -> ExtractSettings:
    """The settings from the command line's options.

    Args:
        bundle: which encoders; None: the preset's, which is the default one without a preset.
        without: modalities to leave out.
        seconds: how much of a longer clip is kept; 0 = all.
        preset: as of `load_config`; what it says of sources, fusion and outputs means nothing here.
        settings: `section.key=value`, as of `load_config`.
        offline: never use the network.

    Raises:
        ConfigurationError: a setting that does not exist, cannot be, or means nothing here.
    """
    if unknown := sorted(set(without) - set(MODALITIES)):
        raise ConfigurationError(f"--without {unknown[0]}: there are {', '.join(MODALITIES)}")
    left_out = frozenset(modality for modality in MODALITIES if modality in without)
    if len(left_out) == len(MODALITIES):
        raise ConfigurationError("nothing is left to extract: leave out one --without")
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"--seconds {seconds:g} cannot be; give seconds, or 0 for whole clips")
    for setting in settings:
        section = setting.partition("=")[0].strip().partition(".")[0]
        if section not in SECTIONS:
            raise ConfigurationError(
                f"--set {setting}: {section!r} means nothing here; there are {', '.join(SECTIONS)}"
            )
    base = load_config(preset)
    bundle = bundle or base.bundle
    overrides: dict[str, Any] = {
        "bundle": bundle,
        "face": {"enabled": False} if "vision" in left_out else {},
        "audio": {"enabled": False} if "audio" in left_out else {},
        "speech": {"backend": "none"} if "text" in left_out else {},
        "models": {"offline": True} if offline else {},
    }
    live = load_config(
        preset,
        [*_defaults(bundle, base), *settings],
        {name: values for name, values in overrides.items() if values},
    )
    extract = ExtractSettings(live=live, without=left_out, seconds=seconds or None)
    for modality, folder in extract.folders.items():
        if not folder.expanduser().is_dir():
            raise ConfigurationError(f"{SECTION_OF[modality]}.model={folder}: there is no such folder")
    find_bundle(bundle).check_extraction(live)
    return extract


def _defaults(bundle: str, preset: LiveConfig) -> list[str]:
    """Settings of the bundle that the preset does not make."""
    found = []
    for setting in find_bundle(bundle).extract_settings:
        section, _, name = setting.partition("=")[0].partition(".")
        if name not in getattr(preset, section).model_fields_set:
            found.append(setting)
    return found
