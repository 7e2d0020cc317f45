"""What decides what features are: the bundle, its encoders' settings, and how much of a clip is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from emi_live.clock import seconds_to_ns
from emi_live.config import LiveConfig, load_config
from emi_live.errors import ConfigurationError
from emi_live.messages import END_OF_STREAM
from emi_models.vocabulary import MODALITIES, Modality

__all__ = ["BUNDLES", "Bundle", "ExtractSettings", "load_settings"]

Bundle: TypeAlias = Literal["compact", "taemi"]
BUNDLES: Final[tuple[Bundle, ...]] = get_args(Bundle)

VERSION: Final = 1  # of the features; one more when the same settings give other numbers
ENCODERS: Final = "encoders"  # the section of `--set` that live use does not have
SECTIONS: Final = ("face", "audio", "speech", "window", "models", ENCODERS)  # that mean something here

# The largest Whisper is too slow on a CPU to be asked twice a second: it gets each utterance when it is over.
DEFAULTS: Final[Mapping[Bundle, tuple[str, ...]]] = {
    "compact": (),
    "taemi": (
        "speech.backend=faster-whisper",
        "speech.model=large-v3-turbo",
        "speech.partial_every_s=3600",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """How clips are made into features; `folders` names encoders that lie outside the model store."""

    bundle: Bundle = "compact"
    live: LiveConfig = field(default_factory=LiveConfig)
    without: frozenset[Modality] = frozenset()
    seconds: float | None = 12.0  # how much of a longer clip is kept; None = all
    folders: Mapping[Modality, Path] = field(default_factory=dict)

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
            "folders": {modality: str(folder) for modality, folder in self.folders.items()},
            "window_s": live.window.length_s,
            **{name: getattr(live, name).model_dump(mode="json") for name in ("face", "audio", "speech")},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load_settings(
    bundle: Bundle = "compact",
    *,
    without: Sequence[str] = (),
    seconds: float = 12.0,
    preset: str | None = None,
    settings: Sequence[str] = (),
    offline: bool = False,
) -> ExtractSettings:
    """The settings from the command line's options.

    Args:
        bundle: which encoders.
        without: modalities to leave out.
        seconds: how much of a longer clip is kept; 0 = all.
        preset: as of `load_config`; what it says of sources, fusion and outputs means nothing here.
        settings: `section.key=value`, as of `load_config`, or `encoders.MODALITY=FOLDER`.
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
    folders: dict[Modality, Path] = {}
    rest = list(DEFAULTS[bundle])
    for setting in settings:
        section, _, key = setting.partition("=")[0].strip().partition(".")
        if section not in SECTIONS:
            raise ConfigurationError(
                f"--set {setting}: {section!r} means nothing here; there are {', '.join(SECTIONS)}"
            )
        if section == ENCODERS:
            modality, folder = _encoder_folder(bundle, key, setting)
            folders[modality] = folder
        else:
            rest.append(setting)
    overrides: dict[str, Any] = {
        "face": {"enabled": False} if "vision" in left_out else {},
        "audio": {"enabled": False} if "audio" in left_out else {},
        "speech": {"backend": "none"} if "text" in left_out else {},
        "models": {"offline": True} if offline else {},
    }
    live = load_config(preset, rest, {name: values for name, values in overrides.items() if values})
    return ExtractSettings(
        bundle=bundle, live=live, without=left_out, seconds=seconds or None, folders=folders
    )


def _encoder_folder(bundle: Bundle, key: str, setting: str) -> tuple[Modality, Path]:
    modality = next((known for known in MODALITIES if known == key), None)
    if modality is None:
        raise ConfigurationError(f"--set {setting}: encoders has {', '.join(MODALITIES)}")
    if bundle == "compact":
        raise ConfigurationError(
            f"--set {setting}: compact encoders come from the model store; set models.directory"
        )
    folder = Path(setting.partition("=")[2].strip()).expanduser()
    if not folder.is_dir():
        raise ConfigurationError(f"--set {setting}: there is no such folder")
    return modality, folder
