"""What a bundle's encoders make of rated files and words; what was computed can be kept in a folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from emi_live.bundle import bundle_of
from emi_live.bundle.base import Encoders
from emi_live.clock import seconds_to_ns
from emi_live.extract.encoders import ClipEncoders, dims_of, load_settings
from emi_live.extract.recorder import record_clip
from emi_models import MODALITIES
from emi_models.baseline import baselines_for, normalised_clip
from emi_models.data.clip import Clip, FeatureTrack, read_clip, write_clip
from emi_models.errors import DataError, EmiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.truth.ratings import RatedItem
    from emi_models import Modality
    from emi_models.baseline import Baseline, BaselineMode
    from emi_models.inputs import FusionShapes
    from emi_models.store import ModelStore

__all__ = ["FeatureMaker", "Features", "relative_to_own_neutral"]

TEXTS: Final = 64  # encoded at once
VOICE: Final = ".voice.npy"  # next to a clip's file: when its voice counts
NO_VOICE: Final = np.zeros(0, np.int64)
NEUTRAL: Final = "neutral"  # the value of a group of files in which the speaker is at rest


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The clips of the items that could be read, by the items' places; and why the others could not.

    `voice_ns` has for each clip of a file the moments (n,) at which its voice counts in live use, from its
    start, increasing. For `dropout_ns` after such a moment live use shows the voice to the network.
    """

    clips: Mapping[int, Clip]
    problems: Mapping[int, str]
    voice_ns: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    dropout_ns: int = 0

    def hears(self, place: int, end_ns: int) -> bool:
        """Whether live use shows this clip's voice to the network in the window that ends there."""
        voice_ns = self.voice_ns.get(place, NO_VOICE)
        known = int(np.searchsorted(voice_ns, end_ns, side="right"))
        return known > 0 and end_ns - int(voice_ns[known - 1]) <= self.dropout_ns


def relative_to_own_neutral(
    features: Features, items: Sequence[RatedItem], encoders: Mapping[Modality, str], mode: BaselineMode
) -> Features:
    """The features relative to each speaker's own neutral, as live use has them.

    A speaker's files are one session, in their order; of one that is not named, each file is a session. With
    `calibrate`, files that a group calls neutral come first: from these five seconds are learned.

    Raises:
        DataError: of none of these features a neutral can be learned.
    """

    def first(place: int) -> bool:
        return mode == "calibrate" and NEUTRAL not in items[place].groups.values()

    sessions: dict[str, dict[Modality, Baseline]] = {}
    clips: dict[int, Clip] = {}
    for place in sorted(features.clips, key=first):
        speaker = items[place].speaker or f"\0{place}"
        if speaker not in sessions:
            sessions[speaker] = baselines_for(encoders, mode)
        clips[place] = normalised_clip(features.clips[place], sessions[speaker])
    return replace(features, clips={place: clips[place] for place in features.clips})


class FeatureMaker:
    """Runs the encoders of a bundle, as live use does, over one file after the other.

    Words are taken as they are given, not recognised. With `cache`, the features of each file are kept there,
    and computed again if the file, the encoders or their settings change.
    """

    def __init__(self, bundle: str, settings: Sequence[str], store: ModelStore, cache: Path | None) -> None:
        """Load the encoders of faces and voices; that of words is loaded when words come.

        Raises:
            EmiError: a setting is wrong, or a model cannot be used.
        """
        self._settings = load_settings(bundle, without=("text",), settings=settings)
        self._store = store
        self._bundle = bundle_of(self._settings.live)
        self._encoders = ClipEncoders(self._settings, store)
        self._cache = cache
        self._fingerprint = self._settings.fingerprint(self._encoders.ids, "")
        self._words: Encoders | None = None
        # A modality without an encoder has no frame, but the width that its checkpoints expect.
        found = dims_of(self._encoders.shapes)
        self._dims = {
            modality: found[modality] if modality in self._encoders.ids else width
            for modality, width in dims_of(self._bundle.shapes).items()
        }
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.close()
        if self._words is not None:
            self._words.close()

    @property
    def ids(self) -> dict[Modality, str]:
        """The encoder of each modality that runs."""
        words = {} if self._words is None else {"text": self._words.ids["text"]}
        return {**self._encoders.ids, **words}  # type: ignore[dict-item]  # "text" is a modality

    def make(self, items: Sequence[RatedItem], show: Callable[[str, int, int], None]) -> Features:
        """The features of all items; `show` is told what comes next, how many are done, and of how many.

        Raises:
            EmiError: words cannot be encoded.
        """
        clips: dict[int, Clip] = {}
        problems: dict[int, str] = {}
        voice_ns: dict[int, NDArray[np.int64]] = {}
        for place, item in enumerate(items):
            if item.path is None:
                clips[place] = self._nothing(f"item{place}")
                continue
            show(item.name, place, len(items))
            try:
                clips[place], voice_ns[place] = self._clip(item.path)
            except (EmiError, OSError) as error:
                problems[place] = str(error).removeprefix(str(item.path)).lstrip(": ")
        spoken = [place for place in clips if items[place].text]
        if spoken:
            show("words", len(items), len(items))
            embeddings = self._embed([items[place].text for place in spoken], show)
            for place, embedding in zip(spoken, embeddings, strict=True):
                text = FeatureTrack(np.zeros(1, np.int64), embedding[None])
                clips[place] = replace(clips[place], text=text)
        return Features(clips, problems, voice_ns, seconds_to_ns(self._settings.live.window.audio_dropout_s))

    def _nothing(self, name: str) -> Clip:
        vision, audio, text = (FeatureTrack.empty(self._dims[modality]) for modality in MODALITIES)
        return Clip(name, vision, audio, text, 0)

    @property
    def _shapes(self) -> FusionShapes:
        dims = {f"{modality}_dim": self._dims[modality] for modality in MODALITIES}
        return replace(self._bundle.shapes, **dims)

    def _clip(self, path: Path) -> tuple[Clip, NDArray[np.int64]]:
        """A file's features, and when its voice counts."""
        status = path.stat()
        key = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{self._fingerprint}"
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        kept = None if self._cache is None else self._cache / f"{name}.safetensors"
        if kept is not None and kept.is_file():
            try:
                return read_clip(kept, self._shapes), _read_voice(kept)
            except DataError:  # cut off, or of another version: it is made again
                kept.unlink()
        self._encoders.forget()
        record = record_clip(path, self._settings.live, self._encoders.stages, self._dims)
        tracks = record.recording.tracks
        clip = Clip(name, tracks["vision"], tracks["audio"], tracks["text"], record.recording.duration_ns)
        if kept is not None:
            np.save(kept.with_suffix(VOICE), record.recording.voice_ns)
            write_clip(kept, clip)
        return clip, record.recording.voice_ns

    def _embed(self, texts: Sequence[str], show: Callable[[str, int, int], None]) -> NDArray[np.float32]:
        """Sentence embeddings (n, D)."""
        if self._words is None:
            words = Encoders(ids=dict(self._bundle.encoder_ids))  # type: ignore[arg-type]  # keys are modalities
            self._bundle.load_text(words, self._settings.live, self._store, None)
            self._words = words
        encoder = self._words.sentence
        if encoder is None:
            raise DataError(f"words cannot be encoded: {self._words.unavailable.get('text', 'no encoder')}")
        key = hashlib.sha256("\0".join((self._words.ids["text"], *texts)).encode()).hexdigest()[:32]
        kept = None if self._cache is None else self._cache / f"{key}.npy"
        if kept is not None and kept.is_file():
            found: NDArray[np.float32] = np.load(kept, allow_pickle=False)
            if found.shape == (len(texts), self._dims["text"]):
                return found
        parts = []
        for start in range(0, len(texts), TEXTS):
            show("words", start, len(texts))
            parts.append(encoder.encode(texts[start : start + TEXTS]).astype(np.float32))
        embeddings = np.concatenate(parts)
        if kept is not None:
            np.save(kept, embeddings)
        return embeddings


def _read_voice(clip: Path) -> NDArray[np.int64]:
    """When the voice of a kept clip counts.

    Raises:
        DataError: that was not kept, or is damaged.
    """
    try:
        found: NDArray[np.int64] = np.load(clip.with_suffix(VOICE), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{clip.with_suffix(VOICE)} cannot be read: {error}") from error
    if found.dtype != np.int64 or found.ndim != 1:
        raise DataError(f"{clip.with_suffix(VOICE)} holds no moments")
    return found
