"""Bundles: named sets of encoders, and the registry that the settings and commands ask for them.

Nothing is substituted silently: every encoder that runs, and every absence, is one line of `announcements`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_live.bundle.base import (
    FACE_MODEL,
    SECTION_OF,
    Bundle,
    CropEncoder,
    Encoders,
    FaceReader,
    load_face,
    load_speech,
)
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from emi_live.config import LiveConfig

__all__ = [
    "FACE_MODEL",
    "SECTION_OF",
    "Bundle",
    "CropEncoder",
    "Encoders",
    "FaceReader",
    "bundle_names",
    "bundle_of",
    "default_bundle",
    "find_bundle",
    "load_face",
    "load_speech",
    "register",
    "unregister",
    "with_tuned_encoders",
]

_BUILT_IN: Final = ("compact", "taemi")  # the first one is the default
_BUNDLES: Final[dict[str, Bundle]] = {}  # those that a program registered, and those of the package once used


def register(bundle: Bundle) -> None:
    """Make a bundle known by its name.

    Raises:
        ValueError: another bundle has this name.
    """
    if bundle.name in bundle_names():
        raise ValueError(f"there is a bundle {bundle.name} already; choose another name")
    _BUNDLES[bundle.name] = bundle


def unregister(name: str) -> None:
    """Forget a bundle that a program registered."""
    del _BUNDLES[name]


def bundle_names() -> tuple[str, ...]:
    """All bundles: those of the package, the default first, then those that a program registered."""
    return (*_BUILT_IN, *(name for name in _BUNDLES if name not in _BUILT_IN))


def find_bundle(name: str) -> Bundle:
    """The bundle of that name; one of the package is imported when it is first asked for.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in _BUNDLES:
        _BUNDLES[name] = _built_in(name)
    return _BUNDLES[name]


def bundle_of(config: LiveConfig) -> Bundle:
    """The bundle that runs with these settings."""
    return find_bundle(config.bundle)


def with_tuned_encoders(config: LiveConfig) -> LiveConfig:
    """The settings with the encoders that were trained together with their checkpoint, if some were.

    A folder that a setting names wins; and so does a bundle that it names, which then refuses the checkpoint.

    Raises:
        CheckpointError: a folder that the checkpoint names is not next to it.
    """
    from emi_models.checkpoint import read_header, tuned_folder
    from emi_models.errors import CheckpointError

    path = config.fusion.checkpoint
    if path is None or (config.bundle != "taemi" and "bundle" in config.model_fields_set):
        return config
    try:
        header = read_header(path)
    except CheckpointError:
        return config  # loading it says what is wrong
    update: dict[str, Any] = {}
    for modality, name in SECTION_OF.items():
        section = getattr(config, name)
        folder = tuned_folder(path, header, modality)
        if folder is not None and section.model is None:
            update[name] = section.model_copy(update={"model": folder})
    return config.model_copy(update={"bundle": "taemi", **update}) if update else config


def default_bundle() -> Bundle:
    """The bundle that runs when no setting names one."""
    return find_bundle(_BUILT_IN[0])


def _built_in(name: str) -> Bundle:
    if name == "compact":
        from emi_live.bundle.compact import CompactBundle

        return CompactBundle()
    if name == "taemi":
        from emi_live.bundle.taemi import TaemiBundle

        return TaemiBundle()
    raise ConfigurationError(f"there is no bundle {name!r}; choose one of {', '.join(bundle_names())}")
