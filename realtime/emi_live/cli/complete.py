"""What a shell offers when Tab is pressed behind an option: presets, engines, models, microphones.

Each answers in a fraction of a second and loads no model library.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_engine import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "SYSTEMS",
    "complete_bundle",
    "complete_camera",
    "complete_engine",
    "complete_microphone",
    "complete_mode",
    "complete_model",
    "complete_preset",
    "complete_system",
]

SYSTEMS: Final = ("taemi", "two_stage", "dual_stage", "semantic_matters")  # a test holds them to be all


def complete_preset(incomplete: str) -> list[str]:
    """The packaged presets, and the TOML files in the folder that is being typed."""
    packaged = (item.name for item in resources.files("emi_configs").iterdir())
    names = [name[:-5] for name in packaged if name.endswith(".toml")]
    folder = Path(incomplete or ".")
    folder = folder if incomplete.endswith("/") else folder.parent
    with suppress(OSError):
        names += [str(path) for path in folder.glob("*.toml")]
    return _starting(incomplete, names)


def complete_bundle(incomplete: str) -> list[str]:
    """What `--bundle` takes."""
    from emi_live.bundle import bundle_names

    return _starting(incomplete, bundle_names())


def complete_engine(incomplete: str) -> list[str]:
    """What `--engine` takes."""
    return _starting(incomplete, ENGINES)


def complete_mode(incomplete: str) -> list[str]:
    """What `--mode` takes."""
    return _starting(incomplete, ("live", "exact"))


def complete_system(incomplete: str) -> list[str]:
    """The systems that can be trained."""
    return _starting(incomplete, SYSTEMS)


def complete_camera(incomplete: str) -> list[str]:
    """The indexes of the cameras that are plugged in."""
    paths = Path("/dev").glob("video*")
    return _starting(incomplete, sorted(path.name.removeprefix("video") for path in paths))


def complete_model(incomplete: str) -> list[str]:
    """The models of the store, here or not."""
    from emi_models.store import ModelStore

    return _starting(incomplete, ModelStore(offline=True).catalogue)


def complete_microphone(incomplete: str) -> list[str]:
    """`none`, and the microphones that are plugged in."""
    names = ["none", "default"]
    with suppress(Exception):  # no sound library, no sound server: nothing may be printed into a prompt
        from emi_live.sources.microphone import list_microphones

        names += [microphone.name for microphone in list_microphones()]
    return _starting(incomplete, names)


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
