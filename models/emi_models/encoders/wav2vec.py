"""Voice features of the `taemi` bundle: wav2vec 2.0's hidden states, and arousal, dominance, valence.

`compare_features` and `compare_intensities` say how far features of a live stream are from those of a whole
pass, and what that does to the intensities. No label is needed: the whole pass (`Wav2vecEncoder.encode`, or
`SlidingWav2vec` in a running engine) is the reference. `emi bench drift` and a check in live use share them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.device import choose_device, on_device
from emi_models.encoders.pretrained import (
    WEIGHTS,
    ModelSpec,
    check_config,
    derived,
    identify,
    is_tuned,
    load_model,
    read_json,
    require,
    sizes_of,
)
from emi_models.errors import ModelIntegrityError
from emi_models.inputs import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from emi_models.inputs import FusionInputs

__all__ = [
    "AUDEERING",
    "HUBERT_LARGE",
    "WAVLM_LARGE",
    "FrameDrift",
    "IntensityDrift",
    "SpeechSpec",
    "Wav2vecEncoder",
    "check_sound",
    "compare_features",
    "compare_intensities",
    "frame_cosines",
    "frame_ends_ns",
    "frames_for",
    "has_affect_head",
    "identify_speech",
    "load_head",
    "normalised",
    "with_voice",
]

RATE_HZ: Final = 16_000
KERNELS: Final = (10, 3, 3, 3, 3, 2, 2)  # of the convolutions that make frames of samples, in samples
STRIDES: Final = (5, 2, 2, 2, 2, 2, 2)
FRAME_SAMPLES: Final = 400  # 25 ms, what one frame sees of the sound before the transformer mixes them
HOP_SAMPLES: Final = 320  # 20 ms
OVERLAP_SAMPLES: Final = FRAME_SAMPLES - HOP_SAMPLES  # what a frame shares with the next
PIECE_SAMPLES: Final = 12 * RATE_HZ  # attention is quadratic in the length, and the papers use 12 s
PIECE_FRAMES: Final = 599  # of a piece
VARIANCE_FLOOR: Final = 1e-7  # added to the variance of the samples, as transformers' feature extractor does
AFFECT: Final = ("arousal", "dominance", "valence")
PREPROCESSOR: Final = "preprocessor_config.json"
AFFECT_PROJECTION: Final = "classifier.out_proj.weight"


@dataclass(frozen=True, slots=True)
class SpeechSpec(ModelSpec):
    """A speech model: with `affect`, one that carries the head for arousal, dominance and valence."""

    affect: bool = False


AUDEERING: Final = SpeechSpec(
    "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
    "wav2vec2",
    1024,
    12,
    store_name="wav2vec2-emotion",
    affect=True,
)
# The same shape without the head, as other participants used: 1024 columns, and no checkpoint for 1027 fits.
HUBERT_LARGE: Final = SpeechSpec("facebook/hubert-large-ls960-ft", "hubert", 1024, 24)
WAVLM_LARGE: Final = SpeechSpec("microsoft/wavlm-large", "wavlm", 1024, 24)
CLASSES: Final = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel", "wavlm": "WavLMModel"}


def frames_for(samples: int) -> int:
    """How many frames so many samples give; 599 for 12 s, 0 for less than 25 ms."""
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        samples = (samples - kernel) // stride + 1 if samples >= kernel else 0
    return samples


def frame_ends_ns(frames: int) -> NDArray[np.int64]:
    """When the sound of each frame ends, shape (frames,), in nanoseconds after the first sample's start."""
    samples = np.arange(frames, dtype=np.int64) * HOP_SAMPLES + FRAME_SAMPLES
    return samples * (1_000_000_000 // RATE_HZ)


def identify_speech(folder: Path, published: SpeechSpec = AUDEERING) -> SpeechSpec:
    """The speech model in the folder, with or without a head for affect; raises as `identify` does."""
    found = identify(folder, published, CLASSES)
    affect = has_affect_head(folder, found.hidden_size)
    if affect == found.affect:
        return found
    for known in (HUBERT_LARGE, WAVLM_LARGE):
        if not affect and sizes_of(found) == sizes_of(known) and not is_tuned(folder, published):
            return known
    return replace(derived(folder, found), affect=affect)


def has_affect_head(folder: Path, width: int) -> bool:
    """Whether the weights hold a projection of the states' width to as many values as affect has."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="np") as stored:
            if AFFECT_PROJECTION not in stored.keys():  # noqa: SIM118  # no mapping
                return False
            return tuple(stored.get_slice(AFFECT_PROJECTION).get_shape()) == (len(AFFECT), width)
    except (OSError, SafetensorError) as error:
        raise ModelIntegrityError(f"{folder / WEIGHTS} cannot be read ({error}): copy it again") from error


class Wav2vecEncoder:
    """Turns a run of 16 kHz mono sound into frames of 1027 features, 50 a second.

    Frame k is about samples [320k, 320k + 400). Columns:

    - 0-1023: the last hidden state;
    - 1024-1026: arousal, dominance, valence of that state, by the model's own head (dense, tanh, dense),
      which was trained on the mean over frames; in about [0, 1]. A model without it gives 1024 columns.

    The transformer looks at all frames of a run, so a frame's features depend on sound before and after it,
    up to 12 s. A run is encoded alone and unpadded (but see `encode_together`): no other clip has any part in
    it. In float32; holds no state, so that several threads may use it.

    Source: Wagner et al. 2023 (arXiv:2203.07378), the model's card and its doi:10.5281/zenodo.6221127.
    """

    def __init__(self, folder: str | Path, spec: SpeechSpec = AUDEERING, *, device: str = "cpu") -> None:
        """Load the model from a folder in transformers' format; nothing is fetched and nothing is unpickled.

        Args:
            folder: holds config.json, model.safetensors and preprocessor_config.json.
            spec: which model it must be.
            device: that it runs on, as of `choose_device`.

        Raises:
            TrainingError: there is no such device.
            ModelUnavailableError: a file of the model is not in the folder.
            ModelIntegrityError: it holds another model, one without the head, or a damaged one.
        """
        folder = Path(folder)
        require(folder, spec, "config.json", WEIGHTS, PREPROCESSOR)
        config = check_config(folder, spec)
        _check_frames(folder, config, spec)
        self._normalise = _reads_normalised(folder, spec)
        import torch
        import transformers

        self._torch, self.device = torch, choose_device(device)
        model = load_model(folder, spec, getattr(transformers, CLASSES[spec.model_type]))
        self._model = on_device(model, self.device)
        # A group norm over time sees padding, a layer norm of each frame does not; a batch norm makes zeros
        # something else (HuBERT); WavLM's masks are of a kind that PyTorch will not take for long.
        by_frame = config.get("feat_extract_norm", "group") == "layer" and spec.model_type != "wavlm"
        self._pads = by_frame and not config.get("conv_pos_batch_norm", False)
        head = load_head(folder, config, spec) if spec.affect else ()
        self._head = tuple(tensor.to(self.device) for tensor in head)
        self.encoder_id = spec.encoder_id
        self.dim = spec.hidden_size + (len(AFFECT) if spec.affect else 0)

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features, shape (frames_for(n), 1027); the caller owns them. Less than 25 ms gives no frame.

        Each piece of 12 s is normalised and encoded by itself, as a window of live sound would be; the last
        piece reaches back, so that its frames too have 12 s about them.

        Args:
            samples: shape (n,), in [-1, 1].

        Raises:
            InputError: not one channel, or not all finite.
        """
        return self.encode_together([samples], batch_size=1)[0]

    def encode_together(
        self, runs: Sequence[NDArray[np.float32]], *, batch_size: int = 8
    ) -> list[NDArray[np.float32]]:
        """As `encode`, for several runs: (frames_for(n), 1027) of each, in their order.

        Up to `batch_size` pieces of 12 s or less go through the network at once.

        Shorter ones are padded and masked; a model whose results would change by padding gets only pieces of
        equal length at once. Features depend on batch mates by no more than rounding (1e-5 of the
        largest).

        Raises:
            InputError: a run is not one channel, or not all finite.
        """
        runs = [check_sound(samples) for samples in runs]
        found = [np.empty((frames_for(samples.size), self.dim), np.float32) for samples in runs]
        pieces = []  # a run's number, the frame that a piece begins with, the first one wanted, and the sound
        for number, samples in enumerate(runs):
            total = len(found[number])
            for first in range(0, total, PIECE_FRAMES):
                start = max(0, min(first, total - PIECE_FRAMES))
                piece = samples[start * HOP_SAMPLES : start * HOP_SAMPLES + PIECE_SAMPLES]
                pieces.append((number, start, first, piece))
        if batch_size > 1:
            pieces.sort(key=lambda one: one[3].size)  # of like length: little padding
        while pieces:
            longest = pieces[0][3].size
            batch = [one for one in pieces[:batch_size] if self._pads or one[3].size == longest]
            del pieces[: len(batch)]
            for (number, start, first, _), frames in zip(
                batch, self._encode_pieces([one[3] for one in batch]), strict=True
            ):
                found[number][first : start + len(frames)] = frames[first - start :]
        return found

    @property
    def model(self) -> Any:
        """The model as transformers has it, in evaluation mode: for other passes over the same weights."""
        return self._model

    @property
    def normalises(self) -> bool:
        """Whether the model takes sound of mean 0 and variance 1."""
        return self._normalise

    @property
    def head(self) -> tuple[Any, ...]:
        """The head's tensors: dense, its bias, projection, offset; empty without a head."""
        return self._head

    def with_affect(self, hidden: Any) -> Any:
        """Hidden states (..., 1024), and next to them what the head says of each: (..., 1027).

        A model without the head gives the states as they are.
        """
        if not self._head:
            return hidden
        torch = self._torch
        dense, bias, projection, offset = self._head
        affect = torch.tanh(hidden @ dense.T + bias) @ projection.T + offset  # (..., 3)
        return torch.cat((hidden, affect), dim=-1)

    def _encode_pieces(self, pieces: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The features of pieces that go through the network at once, (frames, dim) each."""
        torch = self._torch
        longest = max(piece.size for piece in pieces)
        samples = torch.zeros(len(pieces), longest)  # aligned alike for every piece
        mask = torch.zeros(len(pieces), longest, dtype=torch.int64)
        for row, piece in enumerate(pieces):
            taken = normalised(piece) if self._normalise else piece
            samples[row, : piece.size] = torch.tensor(taken, dtype=torch.float32)
            mask[row, : piece.size] = 1
        padded = any(piece.size < longest for piece in pieces)
        given = {"attention_mask": mask.to(self.device)} if padded else {}
        with torch.inference_mode():
            hidden = self._model(samples.to(self.device), **given).last_hidden_state  # (b, frames, 1024)
            rows = [hidden[row, : frames_for(piece.size)] for row, piece in enumerate(pieces)]
            return [self.with_affect(row).cpu().numpy() for row in rows]


def normalised(samples: NDArray[Any]) -> NDArray[Any]:
    """The samples (n,) at mean 0 and variance 1, computed in float64."""
    exact = samples.astype(np.float64)
    scaled: NDArray[Any] = (exact - exact.mean()) / np.sqrt(exact.var() + VARIANCE_FLOOR)
    return scaled


def check_sound(samples: NDArray[Any]) -> NDArray[Any]:
    """The samples as an array of shape (n,), floating point and finite.

    Raises:
        InputError: not one channel, or not all finite.
    """
    from emi_models.inputs import InputError

    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"the sound is {samples.dtype} of shape {samples.shape}, not floating point of (n,): "
            "mix it down to one channel in [-1, 1]"
        )
    if bad := samples.size - int(np.isfinite(samples).sum()):
        raise InputError(
            f"{bad} of {samples.size} samples are NaN or infinite: decode the sound again, or leave it out"
        )
    return samples


def _check_frames(folder: Path, config: Mapping[str, Any], spec: ModelSpec) -> None:
    kernels, strides = tuple(config.get("conv_kernel", KERNELS)), tuple(config.get("conv_stride", STRIDES))
    if (kernels, strides) != (KERNELS, STRIDES) or config.get("add_adapter"):
        raise ModelIntegrityError(
            f"{folder} holds a model that does not make 50 frames a second (kernels {kernels}, strides "
            f"{strides}, adapter {bool(config.get('add_adapter'))}): {spec.remedy}"
        )


def _reads_normalised(folder: Path, spec: ModelSpec) -> bool:
    """Whether the model takes sound of mean 0 and variance 1."""
    found = read_json(folder / PREPROCESSOR, spec)
    if found.get("sampling_rate", RATE_HZ) != RATE_HZ:
        raise ModelIntegrityError(
            f"{folder} holds a model for {found['sampling_rate']} Hz, not {RATE_HZ}: {spec.remedy}"
        )
    return bool(found.get("do_normalize", True))


def load_head(folder: Path, config: Mapping[str, Any], spec: ModelSpec) -> tuple[Any, Any, Any, Any]:
    """Weight and bias of the dense layer, (1024, 1024), (1024,), and of the projection, (3, 1024), (3,)."""
    from safetensors import safe_open

    labels = config.get("id2label") or {}
    order = tuple(str(labels[key]).lower() for key in sorted(labels, key=int))
    named = any(not label.startswith("label_") for label in order)  # transformers' own name for no name
    if named and order != AFFECT:
        raise ModelIntegrityError(
            f"{folder} rates {', '.join(order)}, not {', '.join(AFFECT)} in this order: {spec.remedy}"
        )
    width = spec.hidden_size
    shapes = {
        "classifier.dense.weight": (width, width),
        "classifier.dense.bias": (width,),
        "classifier.out_proj.weight": (len(AFFECT), width),
        "classifier.out_proj.bias": (len(AFFECT),),
    }
    tensors = []
    with safe_open(folder / WEIGHTS, framework="pt") as stored:
        there = set(stored.keys())
        for name, shape in shapes.items():
            found = tuple(stored.get_slice(name).get_shape()) if name in there else None
            if found != shape:
                what = f"has {name} of shape {found}, not {shape}" if found else f"lacks {name}"
                raise ModelIntegrityError(
                    f"{folder / WEIGHTS} {what}: it has no head for {', '.join(AFFECT)}: {spec.remedy}"
                )
            tensors.append(stored.get_tensor(name).float().clone())  # as `load_model` does
    dense, bias, projection, offset = tensors
    return dense, bias, projection, offset


@dataclass(frozen=True, slots=True)
class FrameDrift:
    """Cosine of each frame with the same frame of the reference; 1 is the same direction.

    Attributes:
        frames: how many were compared.
        mean: over frames, in [-1, 1].
        p5: one frame in twenty is below it.
        worst: of all frames.
    """

    frames: int
    mean: float
    p5: float
    worst: float


@dataclass(frozen=True, slots=True)
class IntensityDrift:
    """Absolute differences of the six intensities between two runs, on their scale of [0, 1].

    Attributes:
        windows: how many were compared.
        mean: over windows and intensities.
        worst: of all of them.
        by_emotion: mean over windows, in the order of `EMOTIONS`.
    """

    windows: int
    mean: float
    worst: float
    by_emotion: tuple[float, ...]


def frame_cosines(found: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each frame with its reference, shape (n,), in [-1, 1].

    Two frames of zeros are the same, which is 1; one of zeros and another have nothing in common, which is 0.

    Args:
        found: features, shape (n, dim).
        reference: of the same frames, shape (n, dim).

    Raises:
        InputError: the shapes differ, or are not (n, dim).
    """
    if found.ndim != 2 or found.shape != reference.shape:
        raise InputError(
            f"features of shape {found.shape} cannot be compared with {reference.shape}: "
            "give the same frames of both runs, (n, dim)"
        )
    a, b = found.astype(np.float64), reference.astype(np.float64)
    sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (np.abs(a).max(axis=1, initial=0) == 0) & (np.abs(b).max(axis=1, initial=0) == 0)
    cosines = np.divide((a * b).sum(axis=1), sizes, out=same.astype(np.float64), where=sizes > 0)
    clipped: NDArray[np.float64] = np.clip(cosines, -1.0, 1.0)
    return clipped


def compare_features(cosines: NDArray[np.float64]) -> FrameDrift:
    """Cosines of frames, as `frame_cosines` gives them, in four figures.

    Raises:
        InputError: there are none.
    """
    if cosines.size == 0:
        raise InputError("no frame to compare; a frame takes 25 ms of sound")
    return FrameDrift(
        cosines.size, float(cosines.mean()), float(np.percentile(cosines, 5)), float(cosines.min())
    )


def compare_intensities(found: NDArray[np.float32], reference: NDArray[np.float32]) -> IntensityDrift:
    """Differences of two runs of estimates at the same instants, each of shape (windows, 6).

    Raises:
        InputError: the shapes differ, or there is no window.
    """
    if found.ndim != 2 or found.shape != reference.shape:
        raise InputError(
            f"intensities of shape {found.shape} cannot be compared with {reference.shape}: "
            "give the same windows of both runs, (windows, 6)"
        )
    if len(found) == 0:
        raise InputError("no window to compare; give at least one of both runs")
    apart = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    by_emotion = tuple(float(mean) for mean in apart.mean(axis=0))
    return IntensityDrift(len(apart), float(apart.mean()), float(apart.max()), by_emotion)


def with_voice(window: FusionInputs, frames: NDArray[np.float32]) -> FusionInputs:
    """The same window (one row) with this voice: its last frames, as many as the window has places.

    What else is in the window is shared, so two windows that differ in the voice alone can be given to a
    network, and its answers to `compare_intensities`.

    Raises:
        InputError: frames are not of the window's width, or there are several rows.
    """
    import torch

    rows, places, width = window.audio.shape
    if rows != 1 or frames.ndim != 2 or frames.shape[1] != width:
        raise InputError(
            f"frames of shape {frames.shape} do not fit a window of shape {tuple(window.audio.shape)}: "
            f"give (n, {width}) for one window"
        )
    kept = frames[max(0, len(frames) - places) :]
    audio = torch.zeros_like(window.audio)
    audio[0, : len(kept)] = torch.from_numpy(np.ascontiguousarray(kept, np.float32))
    mask = torch.zeros_like(window.audio_mask)
    mask[0, : len(kept)] = True
    present = torch.full_like(window.audio_present, len(kept) > 0)
    return replace(window, audio=audio, audio_mask=mask, audio_present=present)
