"""A folder of clips, whatever layout it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from emi_models.data.dataset import MANIFEST
from emi_models.data.ratings import SPLITS, split_file
from emi_models.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from emi_models.data.conversion import Progress
    from emi_models.data.dataset import ManifestClips
    from emi_models.data.vidmimic import VidmimicClips

__all__ = ["OpenOptions", "check_folder", "open_clips"]


class OpenOptions(TypedDict, total=False):
    """The options of both readers: down to `seed` those of `ManifestClips`, then those of `VidmimicClips`."""

    labels: Path | None
    valid_fraction: float
    seed: int
    vision: str | None
    audio: str | None
    text: str | None
    cache: Path | None
    progress: Progress | None


_OF_MANIFEST: Final = frozenset({"labels", "valid_fraction", "seed"})


def open_clips(folder: Path, **options: Unpack[OpenOptions]) -> ManifestClips | VidmimicClips:
    """The clips of a folder in emi-live's own layout or in Hume-Vidmimic2's: see those two classes.

    `progress` may be given for either; only a conversion calls it.

    Raises:
        DataError: there is no such folder or neither layout in it, or an option belongs to the other layout.
    """
    ours = check_folder(folder)
    given = {name for name, value in options.items() if value} - {"progress"}
    foreign = given - _OF_MANIFEST if ours else given & _OF_MANIFEST
    if foreign:
        raise DataError(
            f"{folder} has the layout of {'emi-live' if ours else 'Hume-Vidmimic2'}, and "
            f"{', '.join(sorted(foreign))} is for the other one; leave that out"
        )
    from emi_models.data.dataset import ManifestClips
    from emi_models.data.vidmimic import VidmimicClips

    if ours:
        return ManifestClips(
            folder,
            labels=options.get("labels"),
            valid_fraction=options.get("valid_fraction", 0.0),
            seed=options.get("seed", 0),
        )
    return VidmimicClips(
        folder,
        vision=options.get("vision"),
        audio=options.get("audio"),
        text=options.get("text"),
        cache=options.get("cache"),
        progress=options.get("progress"),
    )


def check_folder(folder: Path) -> bool:
    """Whether a folder of clips has emi-live's own layout; looks at names only, and does not load torch.

    Raises:
        DataError: there is no such folder or neither layout in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds {MANIFEST} or train_split.csv")
    ours = (folder / MANIFEST).is_file()
    if not ours and not any(split_file(folder, split).is_file() for split in SPLITS):
        raise DataError(
            f"{folder} has neither {MANIFEST}, which `emi extract` writes, nor train_split.csv, as in "
            "Hume-Vidmimic2; name the folder that holds one of them"
        )
    return ours
