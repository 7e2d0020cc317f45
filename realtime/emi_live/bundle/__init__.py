"""Bundles: named sets of encoders, and the registry that the settings and commands ask for them.

Nothing is substituted silently: every encoder that runs, and every absence, is one line of `announcements`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
from emi_live.bundle.compact import Compact
from emi_live.bundle.taemi import Taemi
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
]

_BUNDLES: Final[dict[str, Bundle]] = {}


def register(bundle: Bundle) -> None:
    """Make a bundle known by its name.

    Raises:
        ValueError: another bundle has this name.
    """
    if bundle.name in _BUNDLES:
        raise ValueError(f"there is a bundle {bundle.name} already; choose another name")
    _BUNDLES[bundle.name] = bundle


def unregister(name: str) -> None:
    """Forget a bundle that a program registered."""
    del _BUNDLES[name]


def bundle_names() -> tuple[str, ...]:
    """All bundles, in the order of registration; the first is the default."""
    return tuple(_BUNDLES)


def find_bundle(name: str) -> Bundle:
    """The bundle of that name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in _BUNDLES:
        raise ConfigurationError(f"there is no bundle {name!r}; choose one of {', '.join(_BUNDLES)}")
    return _BUNDLES[name]


def bundle_of(config: LiveConfig) -> Bundle:
    """The bundle that runs with these settings."""
    return find_bundle(config.bundle)


def default_bundle() -> Bundle:
    """The bundle that runs when no setting names one."""
    return next(iter(_BUNDLES.values()))


register(Compact())
register(Taemi())
