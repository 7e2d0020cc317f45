"""What a data set's features are: `dataset.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from emi_models.data.errors import DataError
from emi_models.data.files import replacing
from emi_models.inputs import FusionShapes
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emi_models.vocabulary import Modality

__all__ = ["FORMAT_VERSION", "INFO", "DatasetInfo", "read_info", "write_info"]

FORMAT_VERSION: Final = 1
INFO: Final = "dataset.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What features are, by which encoders; the sizes of a 12 s window; whence they come, and on what terms.

    `encoders` names only the modalities that have features; the width of one that has none is 1. `notes` says
    what else made them so: the recogniser, its settings, versions.
    """

    bundle: str
    encoders: Mapping[Modality, str]
    shapes: FusionShapes
    description: str
    licence: str
    format_version: int = FORMAT_VERSION
    notes: Mapping[str, str] = field(default_factory=dict)


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Write `dataset.json`, whole or not at all."""
    with replacing(folder / INFO) as part:
        part.write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")


def read_info(folder: Path) -> DatasetInfo:
    """What `dataset.json` says.

    Raises:
        DataError: there is none, or it is not what `write_info` writes.
    """
    path = folder / INFO
    try:
        story = json.loads(path.read_text(encoding="utf-8"))
        info = _parse(story)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; `emi extract` writes it") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be understood: {error}; write it again with `emi extract`") from error
    return info


def _parse(story: object) -> DatasetInfo:
    """A description from decoded JSON; raises what `read_info` catches."""
    if not isinstance(story, dict) or story.get("format_version") != FORMAT_VERSION:
        version = story.get("format_version") if isinstance(story, dict) else None
        raise ValueError(f"format version {version!r}, this emi-live reads {FORMAT_VERSION}")
    info = DatasetInfo(**{**story, "shapes": FusionShapes(**story["shapes"])})
    if not isinstance(info.encoders, dict) or not set(info.encoders) <= set(MODALITIES):
        raise ValueError(f"encoders {info.encoders!r}")
    if not isinstance(info.notes, dict):
        raise TypeError(f"notes {info.notes!r} are not an object")
    texts = (info.bundle, info.description, info.licence, *info.encoders.values(), *info.notes.values())
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not text")
    return info
