"""Features of a data set's pictures, audio or text, from an encoder of your choice.

::

    FOLDER/face_images/00001/0.jpg, …    pictures of a clip; or any other folder of such folders
    FOLDER/audio/00001.mp3               its audio; or raw/00001.mp4
    FOLDER/text/00001.txt                its words; an empty file means no words
    FOLDER/NAME/00001.safetensors        the result: frames (T, D), or one vector (1, D) for text
    FOLDER/NAME/encoder.json             the encoder and its settings

All three may also lie in `test_data` or `test`. `VidmimicClips` reads the result: `vision=NAME`, and so on.
A clip's file is complete or absent, so that an interrupted run can be resumed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors.numpy import save_file

from emi_models.data.clip import normal_id
from emi_models.data.vidmimic import BELOW, face_pictures
from emi_models.encoders.vit import UnreadablePictureError, read_face
from emi_models.encoders.wav2vec import RATE_HZ
from emi_models.errors import DataError
from emi_models.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.encoders.hub import HubEncoder

__all__ = ["ENCODER", "Encoded", "encode_set", "read_sound", "sources"]

ENCODER: Final = "encoder.json"
PICTURES: Final = 400  # the first ones of a clip, as in the papers
USUAL: Final[Mapping[Modality, tuple[str, ...]]] = {
    "vision": ("face_images",),
    "audio": ("audio", "raw"),
    "text": ("text",),
}
SUFFIXES: Final[Mapping[Modality, tuple[str, ...]]] = {
    "audio": (".mp3", ".wav", ".flac", ".m4a", ".ogg", ".mp4", ".webm", ".mkv", ".mov", ".avi"),
    "text": (".txt",),
}
AHEAD: Final = 16  # clips that are read before they are encoded together


@dataclass(slots=True)
class Encoded:
    """The result of a run: clips written now and before, clips without input, and refused clips."""

    written: int = 0
    kept: int = 0
    empty: int = 0  # no words, no picture, no sound
    refused: dict[str, str] = field(default_factory=dict)  # clip and reason


def sources(folder: Path, modality: Modality, choice: str | None = None) -> dict[str, Path]:
    """The folder of pictures, or the file of audio or text, of each clip, by its id.

    Args:
        folder: of the data set.
        modality: which of the three.
        choice: the name of a folder below `folder`; None: the usual one.

    Raises:
        DataError: there is no such folder, or it has no clip.
    """
    found: dict[str, Path] = {}
    for name in USUAL[modality] if choice is None else (choice,):
        for place in (folder / below / name for below in BELOW):
            if place.is_dir():
                for path in sorted(place.iterdir()):
                    wanted = (
                        path.is_dir() if modality == "vision" else path.suffix.lower() in SUFFIXES[modality]
                    )
                    if wanted and not path.name.startswith("."):
                        found.setdefault(normal_id(path.name if path.is_dir() else path.stem), path)
    if not found:
        names = choice or " or ".join(USUAL[modality])
        raise DataError(f"{folder} has no {names} with {modality} of its clips; name a folder with --source")
    return found


def encode_set(
    folder: Path,
    out: Path,
    encoder: HubEncoder,
    *,
    source: str | None = None,
    batch_size: int | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Encode all clips that have input and are not encoded yet.

    Clips go through the network in batches; the result is as if each were alone. The first 400 pictures of a
    clip are read. A picture number that is missing among them is a missing frame, NaN in the file.

    Args:
        folder: of the data set.
        out: folder for the features.
        encoder: its modality decides what is read.
        source: as `choice` of `sources`.
        batch_size: pictures, blocks of audio or texts at once; None: the encoder's default.
        advance: called with how many clips are done, and how many there are.

    Raises:
        DataError: nothing can be read, or `out` holds features of another encoder.
    """
    modality = encoder.kind.modality
    given = sources(folder, modality, source)
    _claim(
        out, {"encoder": encoder.encoder_id, "modality": modality, "dim": encoder.dim, "source": source or ""}
    )
    found, pending = Encoded(), []
    for clip_id, path in given.items():
        if (out / f"{clip_id}.safetensors").is_file():
            found.kept += 1
        else:
            pending.append((clip_id, path))
    readers: dict[Modality, Callable[[Path], Any]] = {"vision": _read_pictures, "audio": read_sound}
    readers["text"] = _read_words
    batch: list[tuple[str, Any]] = []
    for number, (clip_id, path) in enumerate(pending, start=1):
        try:
            held = readers[modality](path)
        except (DataError, UnreadablePictureError) as error:
            found.refused[clip_id] = str(error)
            held = None
        else:
            if not len(held):
                found.empty += 1
            else:
                batch.append((clip_id, held))
        if batch and (len(batch) == AHEAD or number == len(pending)):
            _write(out, encoder, batch, batch_size)
            found.written += len(batch)
            batch = []
        if advance is not None:
            advance(number + found.kept, len(given))
    return found


def read_sound(path: Path) -> NDArray[np.float32]:
    """The audio of a media file, (n,), 16 kHz mono in [-1, 1]; empty if it has none.

    Raises:
        DataError: it cannot be decoded.
    """
    import av

    parts: list[NDArray[np.float32]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return np.zeros(0, np.float32)
            # Channels are averaged here: FFmpeg's own mix of two is louder by a factor of 1.4.
            resampler = av.AudioResampler(format="fltp", rate=RATE_HZ)
            for frame in (*container.decode(audio=0), None):
                parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DataError(f"{path} cannot be decoded: {error}; fetch it again, or leave it out") from error
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _read_pictures(folder: Path) -> list[tuple[int, NDArray[np.uint8]]]:
    """Numbers and pictures of a clip, of the first 400 numbers."""
    found = []
    for t_ns, path in face_pictures(folder, hz=1.0):
        number = round(t_ns / 1e9)
        if number < PICTURES:
            found.append((number, read_face(path)))
    return found


def _read_words(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _write(out: Path, encoder: HubEncoder, batch: Sequence[tuple[str, Any]], batch_size: int | None) -> None:
    size = {} if batch_size is None else {"batch_size": batch_size}
    held = [each for _, each in batch]
    modality = encoder.kind.modality
    if modality == "text":
        features = [row[None] for row in encoder.encode_texts(held, **size)]
    elif modality == "audio":
        features = encoder.encode_sounds(held, **size)
    else:
        rows = encoder.encode_pictures([picture for clip in held for _, picture in clip], **size)
        features = list(_by_number(held, rows))
    for (clip_id, _), values in zip(batch, features, strict=True):
        with replacing(out / f"{clip_id}.safetensors") as part:
            save_file({"features": np.ascontiguousarray(values)}, part)


def _by_number(
    clips: Sequence[Sequence[tuple[int, Any]]], rows: NDArray[np.float32]
) -> Iterator[NDArray[np.float32]]:
    """Each clip's rows at their numbers; NaN if a number is missing."""
    start = 0
    for clip in clips:
        numbers = [number for number, _ in clip]
        values = np.full((numbers[-1] + 1, rows.shape[1]), np.nan, np.float32)
        values[numbers] = rows[start : start + len(clip)]
        start += len(clip)
        yield values


def _claim(out: Path, made_by: Mapping[str, object]) -> None:
    """Write down the encoder of a folder's features; refuse a folder with features of another one."""
    path = out / ENCODER
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there != made_by:
            raise DataError(
                f"{out} holds features of {there.get('encoder')}, not of {made_by['encoder']}; "
                "name another folder"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} holds files that `emi extract` did not write; name another folder")
    with replacing(path) as part:
        part.write_text(json.dumps(made_by, indent=1) + "\n", encoding="utf-8")
