"""What encoders that are trained read of each clip: its sound, words and face crops, in batches.

`MediaWindows` gives a clip's window together with its media, `collate_media` makes batches of them. What
encoders make of these takes the place of the stored features (`emi_models.training.encoders`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from emi_models.data.batches import ClipWindows, RatedClips, collate
from emi_models.data.clip import WINDOW_S
from emi_models.data.dataset import ManifestClips
from emi_models.data.media import media_path, read_media
from emi_models.encoders.text import MAX_TOKENS
from emi_models.encoders.wav2vec import PIECE_SAMPLES, frame_ends_ns, frames_for, normalised
from emi_models.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.data.media import ClipMedia
    from emi_models.inputs import FusionInputs
    from emi_models.training.encoders import TrainedEncoders

__all__ = ["MediaInputs", "MediaReaders", "MediaWindows", "collate_media", "with_media"]

NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class MediaInputs:
    """A batch of windows with what encoders read: B clips, None where a modality is not encoded here.

    `sound` (B, S) is normalised as the model wants it, zeros behind its `samples` (B,); of the frames that it
    gives, the first `frames` (B,) belong to the window. `tokens` and `token_mask` are (B, L). `pixels`
    (N, 3, side, side) are the crops of all clips, that of row `owners` (N,) at place `places` (N,).
    """

    window: FusionInputs
    sound: Tensor | None = None
    samples: Tensor | None = None
    frames: Tensor | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    pixels: Tensor | None = None
    owners: Tensor | None = None
    places: Tensor | None = None

    def to(self, device: torch.device) -> MediaInputs:
        """The same on another device."""
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        window = type(self.window)(*(tensor.to(device) for tensor in self.window.tensors()))
        return MediaInputs(window=window, **moved)


MediaRow = tuple[MediaInputs, "Tensor"]


class MediaWindows(ClipWindows):
    """As `ClipWindows`, and with each window what the encoders that are trained read of its clip.

    Args:
        clips: a folder that `emi extract --keep-media` wrote.
        split: which of them.
        encoders: what is trained.
        options: of `ClipWindows`.

    Raises:
        TrainingError: the clips are not in emi-live's own layout.
    """

    def __init__(self, clips: ClipSet, split: str, encoders: TrainedEncoders, **options: Any) -> None:
        super().__init__(clips, split, **options)
        self.source = with_media(clips)
        self.reads = encoders.reads
        self.shown: tuple[Modality, ...] = encoders.modalities
        shapes = clips.shapes
        self._most = {"vision": shapes.vision_frames, "audio": shapes.audio_frames}

    def __getitem__(self, index: int) -> MediaRow:  # type: ignore[override]  # a window and what comes with it
        window, targets = super().__getitem__(index)
        clip_id = self.ids[index]
        end_ns = min(self._clip(index).duration_ns, self.until_ns)
        found: dict[str, Tensor] = {}
        if "text" in self.shown:
            words = self.source.transcript(clip_id) if bool(window.text_present) else ""
            found |= self.reads.words(words)
            window = replace(window, text_present=torch.tensor([bool(words)]))
        if "audio" in self.shown or "vision" in self.shown:
            media = read_media(media_path(self.source.folder, clip_id), faces="vision" in self.shown)
            if "audio" in self.shown:
                found |= self.reads.sound(media, end_ns, self._most["audio"])
            if "vision" in self.shown:
                found |= self.reads.faces(media, end_ns, self._most["vision"])
        return MediaInputs(window=window, **found), targets


def with_media(clips: ClipSet) -> ManifestClips:
    """The folder of clips in emi-live's own layout, which alone can have media.

    Raises:
        TrainingError: the clips are in another layout.
    """
    source = clips.clips if isinstance(clips, RatedClips) else clips
    if not isinstance(source, ManifestClips):
        raise TrainingError(
            "encoders are trained on clips that `emi extract --keep-media` wrote; these have features only"
        )
    return source


def collate_media(rows: Sequence[MediaRow]) -> MediaRow:
    """A batch of `MediaWindows`' rows, each part as long as its longest."""
    inputs = [row for row, _ in rows]
    window, targets = collate([(row.window, target) for row, target in rows])
    found: dict[str, Tensor] = {}
    for name in ("sound", "tokens", "token_mask"):
        parts = [part for row in inputs if (part := getattr(row, name)) is not None]
        if parts:
            found[name] = nn.utils.rnn.pad_sequence([part[0] for part in parts], batch_first=True)
    for name in ("samples", "frames", "pixels", "places"):
        parts = [part for row in inputs if (part := getattr(row, name)) is not None]
        if parts:
            found[name] = torch.cat(parts)
    if "places" in found:
        counts = torch.tensor([len(row.places) for row in inputs if row.places is not None])
        found["owners"] = torch.repeat_interleave(torch.arange(len(inputs)), counts)
    return MediaInputs(window=window, **found), targets


@dataclass(frozen=True, slots=True, eq=False)
class MediaReaders:
    """Turns a clip's media into what each model takes; it goes to the processes that read clips."""

    tokenizer: Any = None
    normalises: bool = True
    mean: NDArray[Any] | float = 0.0  # of a crop's channels, and their deviation
    deviation: NDArray[Any] | float = 1.0

    def words(self, text: str) -> dict[str, Tensor]:
        """Tokens (1, L) and their mask, as the text encoder has them; of an absent text, those of none."""
        found = self.tokenizer([text], truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        return {"tokens": found["input_ids"], "token_mask": found["attention_mask"]}

    def sound(self, media: ClipMedia, end_ns: int, most: int) -> dict[str, Tensor]:
        """The window's sound (1, S) and how many of its frames count."""
        samples: NDArray[Any] = media.sound[:PIECE_SAMPLES]
        stamps = media.sound_ns + frame_ends_ns(frames_for(len(samples)))
        frames = min(int(np.searchsorted(stamps, end_ns, side="right")), most)
        if frames and self.normalises:
            samples = normalised(samples)
        if not frames:
            samples = np.zeros(0, np.float32)
        sound = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
        return {
            "sound": sound,
            "samples": torch.tensor([sound.shape[1]]),
            "frames": torch.tensor([frames]),
        }

    def faces(self, media: ClipMedia, end_ns: int, most: int) -> dict[str, Tensor]:
        """The window's crops (n, 3, side, side), the newest `most`, and their places."""
        stop = int(np.searchsorted(media.faces_ns, end_ns, side="right"))
        start = int(np.searchsorted(media.faces_ns, end_ns - round(WINDOW_S * NS_PER_S), side="right"))
        crops = media.faces[max(start, stop - most) : stop]
        pixels = (crops.astype(np.float32) / 255 - self.mean) / self.deviation
        taken = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32))
        return {"pixels": taken, "places": torch.arange(len(taken))}
