"""One clip in one safetensors file: features with their stamps; in the header its words and its source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emi_models.data.clip import Clip, Track
from emi_models.data.errors import DataError
from emi_models.data.files import first_rows, replacing
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_models.inputs import FusionShapes
    from emi_models.vocabulary import Modality

__all__ = ["ClipStory", "read_clip", "read_story", "write_clip"]

_KEY: Final = "emi_clip"  # the one metadata entry, a JSON object


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipStory:
    """What a clip's file says besides features: its words, the name of its video, its length."""

    id: str
    transcript: str
    source: str
    duration_ns: int


def write_clip(path: Path, clip: Clip, *, transcript: str = "", source: str = "") -> None:
    """Write one clip's features, whole or not at all; its ratings belong to the manifest.

    Args:
        path: the file to write or replace.
        clip: finite features with stamps that do not go back.
        transcript: its words, "" if there are none.
        source: the file it came from, of which only the name is kept.

    Raises:
        DataError: the clip is not as it should be, or cannot be written.
    """
    tensors: dict[str, NDArray[np.generic]] = {}
    for modality in MODALITIES:
        track: Track = getattr(clip, modality)
        if problem := _problem(track, None):
            raise DataError(f"clip {clip.id} has {modality} {problem}; nothing was written")
        tensors[modality] = np.ascontiguousarray(track.values, np.float32)
        tensors[f"{modality}_t_ns"] = np.ascontiguousarray(track.t_ns, np.int64)
    name = source.replace("\\", "/").rpartition("/")[2]
    story = ClipStory(id=clip.id, transcript=transcript, source=name, duration_ns=clip.duration_ns)
    with replacing(path) as part:
        save_file(tensors, part, metadata={_KEY: json.dumps(asdict(story))})


def read_story(path: Path) -> ClipStory:
    """What a clip's file says besides features, without reading those.

    Raises:
        DataError: there is no such file, or `write_clip` did not write it.
    """
    try:
        with safe_open(path, framework="np") as file:
            story = json.loads((file.metadata() or {})[_KEY])
        found = ClipStory(**story)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; extract the clip again") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no clip of emi-live: {error!r}; extract the clip again") from error
    if not isinstance(found.duration_ns, int) or found.duration_ns < 0:
        raise DataError(f"{path} has the length {found.duration_ns!r} ns; extract the clip again")
    return found


def read_clip(path: Path, shapes: FusionShapes, first_ns: int | None = None) -> Clip:
    """The clip that a file holds, without ratings.

    Args:
        path: a file that `write_clip` wrote.
        shapes: whose widths its features must have.
        first_ns: how much of a longer clip is read; None = all.

    Raises:
        DataError: the file is damaged, or its features are others.
    """
    story = read_story(path)
    tracks: dict[Modality, Track] = {}
    try:
        with safe_open(path, framework="np") as file:
            for modality in MODALITIES:
                t_ns: NDArray[np.int64] = file.get_tensor(f"{modality}_t_ns")
                stop = len(t_ns) if first_ns is None else int(np.searchsorted(t_ns, first_ns, side="right"))
                tracks[modality] = Track(t_ns[:stop], first_rows(file, modality, stop))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; extract the clip again") from error
    for modality, track in tracks.items():
        if problem := _problem(track, getattr(shapes, f"{modality}_dim")):
            raise DataError(f"{path} has {modality} {problem}; extract the clip again")
    vision, audio, text = (tracks[modality] for modality in MODALITIES)
    return Clip(story.id, vision, audio, text, story.duration_ns)


def _problem(track: Track, dim: int | None) -> str:
    """What is wrong with a track, in words that follow the modality's name; "" if nothing is."""
    t_ns, values = track.t_ns, track.values
    if values.ndim != 2 or t_ns.shape != values.shape[:1] or (dim is not None and values.shape[1] != dim):
        return f"of shape {values.shape} with stamps {t_ns.shape}, not (T, {dim or 'D'}) with (T,)"
    if values.dtype != np.float32 or t_ns.dtype != np.int64:
        return f"of {values.dtype} with stamps of {t_ns.dtype}, not float32 with int64"
    if (t_ns[1:] < t_ns[:-1]).any():
        return "whose stamps go back"
    return "" if np.isfinite(values).all() else "that is NaN or infinite somewhere"
