"""Any encoder of the papers from a folder in transformers' format: pictures, sound or texts to features.

`KINDS` has a line for each architecture: what it reads, its class, how frames come out of it. Live use has
encoders of its own (`vit`, `wav2vec`, `text`); this one is for whole data sets: on a GPU if there is one, and
many clips at a time. A clip's features do not depend on which others are computed with it, but for rounding.

A folder is as `hf download MODEL --local-dir FOLDER` makes it. Nothing is fetched, nothing is unpickled, and
no code of a model runs unless it is allowed (`emi_models.encoders.text.REMOTE_CODE`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from emi_models.device import on_device
from emi_models.encoders.pretrained import (
    WEIGHTS,
    ModelSpec,
    derived,
    load_model,
    quiet_transformers,
    read_json,
    require,
)
from emi_models.encoders.text import MAX_TOKENS, VOCABULARIES, code_options
from emi_models.encoders.wav2vec import (
    AFFECT,
    HOP_SAMPLES,
    RATE_HZ,
    VARIANCE_FLOOR,
    check_sound,
    frames_for,
    has_affect_head,
    load_head,
)
from emi_models.errors import ModelIntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from emi_models import Modality

__all__ = ["KINDS", "HubEncoder", "Kind", "Pooling", "kind_of"]

Pooling = Literal["cls", "mean"]
PREPROCESSOR: Final = "preprocessor_config.json"
BICUBIC: Final = 3  # PIL's number
WAVES_S, MELS_S, WHISPER_S = 12.0, 12.0, 30.0  # of sound at once: the papers' window; Whisper's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One architecture: the modality that it reads, transformers' class, and what is taken of its output.

    `pooling` is what is usual for it: `cls` is the first token, or what the model's own pooling gives where
    `pooler` is set; `mean` is over all tokens that are not padding. Sound is not pooled. `piece_s` is how
    much sound is encoded at once; `reads` says as what; without `pads`, one at a time, since padding would
    change what it makes of the frames before.
    """

    modality: Modality
    model: str
    pooling: Pooling = "cls"
    pooler: bool = False
    options: Mapping[str, Any] | None = None
    reads: Literal["waves", "mels", "whisper"] = "waves"
    piece_s: float = WAVES_S
    pads: bool = True
    width: str = "hidden_size"  # its name in config.json


_BARE: Final = {"add_pooling_layer": False}

KINDS: Final[Mapping[str, Kind]] = {
    "vit": Kind(modality="vision", model="ViTModel", pooling="mean", options=_BARE),
    "dinov2": Kind(modality="vision", model="Dinov2Model"),
    "dinov2_with_registers": Kind(modality="vision", model="Dinov2WithRegistersModel"),
    "clip": Kind(modality="vision", model="CLIPVisionModel", pooler=True),
    "clip_vision_model": Kind(modality="vision", model="CLIPVisionModel", pooler=True),
    "siglip": Kind(modality="vision", model="SiglipVisionModel", pooler=True),
    "siglip_vision_model": Kind(modality="vision", model="SiglipVisionModel", pooler=True),
    "wav2vec2": Kind(modality="audio", model="Wav2Vec2Model"),
    "hubert": Kind(modality="audio", model="HubertModel"),
    "wavlm": Kind(modality="audio", model="WavLMModel", pads=False),
    "data2vec-audio": Kind(modality="audio", model="Data2VecAudioModel", pads=False),
    "wav2vec2-bert": Kind(modality="audio", model="Wav2Vec2BertModel", reads="mels", piece_s=MELS_S),
    "whisper": Kind(
        modality="audio", model="WhisperModel", reads="whisper", piece_s=WHISPER_S, width="d_model"
    ),
    "bert": Kind(modality="text", model="BertModel", options=_BARE),
    "roberta": Kind(modality="text", model="RobertaModel", options=_BARE),
    "xlm-roberta": Kind(modality="text", model="XLMRobertaModel", options=_BARE),
    "distilbert": Kind(modality="text", model="DistilBertModel", width="dim"),
    "mpnet": Kind(modality="text", model="MPNetModel", pooling="mean", options=_BARE),
    "modernbert": Kind(modality="text", model="ModernBertModel"),
    "deberta": Kind(modality="text", model="DebertaModel"),
    "deberta-v2": Kind(modality="text", model="DebertaV2Model"),
    "electra": Kind(modality="text", model="ElectraModel"),
    "new": Kind(modality="text", model="AutoModel"),  # Alibaba's GTE: code of its own
}


def kind_of(folder: Path) -> tuple[str, Kind]:
    """The architecture that a folder's `config.json` names.

    Raises:
        ModelUnavailableError: there is no `config.json`.
        ModelIntegrityError: it is damaged, or names an architecture that is not in `KINDS`.
    """
    spec = _spec(folder, "")
    require(folder, spec, "config.json")
    name = str(read_json(folder / "config.json", spec).get("model_type"))
    if name not in KINDS:
        raise ModelIntegrityError(f"{folder} holds a model of type {name!r}; there are {', '.join(KINDS)}")
    return name, KINDS[name]


class HubEncoder:
    """One encoder on one device, in float32; one thread at a time.

    Attributes:
        kind: its architecture.
        dim: values of one frame or text.
        encoder_id: what computes: architecture, sizes, the weights' sha256, and the pooling.
        pooling: how pictures and texts become one vector.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pooling: Pooling | None = None,
        device: str = "cpu",
        allow_remote_code: bool = False,
    ) -> None:
        """Load it.

        Args:
            folder: in transformers' format, with `model.safetensors`.
            pooling: None: what is usual for the architecture.
            device: as PyTorch names it.
            allow_remote_code: as for `TransformerTextEncoder`.

        Raises:
            ModelUnavailableError: a file is not there, or the model needs code that may not run.
            ModelIntegrityError: the folder holds what cannot be used.
        """
        import torch
        import transformers

        self.name, self.kind = kind_of(folder)
        self.pooling: Pooling = pooling or self.kind.pooling
        self._torch, self._device = torch, torch.device(device)
        spec = self._spec = _spec(folder, self.name)
        require(folder, spec, WEIGHTS)
        config = read_json(folder / "config.json", spec)
        sizes = config.get("vision_config", config) if self.kind.modality == "vision" else config
        options: dict[str, Any] = dict(self.kind.options or {})
        if self.kind.modality == "text":
            if not any((folder / name).is_file() for name in VOCABULARIES):
                require(folder, spec, VOCABULARIES[0])
            code = code_options(folder, config, spec, allow_remote_code)
            options |= code
            with quiet_transformers():
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                    str(folder), local_files_only=True, **code
                )
        else:
            require(folder, spec, PREPROCESSOR)
            self._reads = read_json(folder / PREPROCESSOR, spec)
        model = load_model(folder, spec, getattr(transformers, self.kind.model), **options)
        model = model.encoder if self.kind.reads == "whisper" else model
        self._model = on_device(model, self._device)
        self.dim = int(sizes.get(self.kind.width) or model.config.hidden_size)
        sized = replace(spec, hidden_size=self.dim, layers=int(model.config.num_hidden_layers))
        how = "" if self.kind.modality == "audio" else f", {self.pooling}"
        self.encoder_id = derived(folder, sized).encoder_id + how
        self._head: Any = None
        if self.kind.modality == "audio":
            self._prepare_sound(folder, config)

    def encode_pictures(
        self, pictures: Sequence[NDArray[np.uint8]], batch_size: int = 64
    ) -> NDArray[np.float32]:
        """A vector (N, dim) for each picture (height, width, 3), RGB, of any size.

        Pictures are sized, cut and scaled as the model's own `preprocessor_config.json` says.
        """
        features = np.empty((len(pictures), self.dim), np.float32)
        with self._torch.inference_mode():
            for start in range(0, len(pictures), batch_size):
                batch = self._torch.stack([self._sized(p) for p in pictures[start : start + batch_size]])
                out = self._model(pixel_values=batch)
                if self.pooling == "mean":
                    vectors = out.last_hidden_state.mean(dim=1)
                else:
                    vectors = out.pooler_output if self.kind.pooler else out.last_hidden_state[:, 0]
                features[start : start + batch_size] = vectors.float().cpu().numpy()
        return features

    def encode_texts(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """A vector (N, dim) for each text, of its first 128 tokens."""
        features = np.empty((len(texts), self.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # of like length: little padding
        with self._torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                tokens = self._tokenizer(
                    [texts[i] for i in rows],
                    padding=True,
                    truncation=True,
                    max_length=MAX_TOKENS,
                    return_tensors="pt",
                ).to(self._device)
                states = self._model(**tokens).last_hidden_state  # (b, tokens, dim)
                if self.pooling == "mean":
                    kept = tokens["attention_mask"][:, :, None].to(states.dtype)
                    vectors = (states * kept).sum(dim=1) / kept.sum(dim=1)
                else:
                    vectors = states[:, 0]
                features[rows] = vectors.float().cpu().numpy()
        return features

    def encode_sounds(
        self, sounds: Sequence[NDArray[np.float32]], batch_size: int = 8
    ) -> list[NDArray[np.float32]]:
        """Frames (T, dim), 50 a second, of each sound (n,), 16 kHz mono in [-1, 1].

        Each piece of `kind.piece_s` is normalised and encoded by itself; a last piece of less than 25 ms
        gives no frame. Pieces of several sounds go through the network together.

        Raises:
            InputError: a sound is not one channel, or not all finite.
        """
        length = round(self.kind.piece_s * RATE_HZ)
        whole = [check_sound(sound) for sound in sounds]
        pieces = [
            (row, sound[start : start + length])
            for row, sound in enumerate(whole)
            for start in range(0, max(1, len(sound)), length)
        ]
        order = sorted(
            (k for k in range(len(pieces)) if frames_for(len(pieces[k][1]))), key=lambda k: len(pieces[k][1])
        )
        found: dict[int, NDArray[np.float32]] = {}
        size = batch_size if self._pads else 1
        with self._torch.inference_mode():
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                encoded = self._encode_pieces([pieces[k][1] for k in rows])
                found |= dict(zip(rows, encoded, strict=True))
        nothing = np.zeros((0, self.dim), np.float32)
        return [
            np.concatenate(
                [nothing, *(found[k] for k, (of, _) in enumerate(pieces) if of == row and k in found)]
            )
            for row in range(len(whole))
        ]

    def _prepare_sound(self, folder: Path, config: Mapping[str, Any]) -> None:
        """What reads sound: an extractor of log-mels, or plain samples; and the head, if there is one."""
        import transformers

        extractors = {"mels": "SeamlessM4TFeatureExtractor", "whisper": "WhisperFeatureExtractor"}
        if self._reads.get("sampling_rate", RATE_HZ) != RATE_HZ:
            raise ModelIntegrityError(
                f"{folder} reads sound of {self._reads['sampling_rate']} Hz, not {RATE_HZ}"
            )
        if self.kind.reads != "waves":
            # Padding of log-mels is masked, and Whisper always reads 30 s: batches do no harm.
            self._pads = True
            with quiet_transformers():
                self._extractor: Any = getattr(transformers, extractors[self.kind.reads]).from_pretrained(
                    str(folder), local_files_only=True
                )
            return
        # A group norm over time sees padding; a layer norm of each frame does not.
        self._pads = self.kind.pads and config.get("feat_extract_norm", "layer") == "layer"
        if has_affect_head(folder, self.dim):
            head = load_head(folder, config, replace(self._spec, hidden_size=self.dim))
            self._head = [tensor.to(self._device) for tensor in head]
            self.dim += len(AFFECT)

    def _encode_pieces(self, pieces: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Frames (T, dim) of pieces that go through the network together."""
        if self.kind.reads != "waves":
            given = self._extractor(
                [piece.astype(np.float32) for piece in pieces], sampling_rate=RATE_HZ, return_tensors="pt"
            ).to(self._device)
            hidden = self._model(**given).last_hidden_state
            ends = [-(-len(piece) // HOP_SAMPLES) for piece in pieces]
            if self.kind.reads == "mels":
                ends = given["attention_mask"].sum(dim=1).tolist()
            return [hidden[row, :end].float().cpu().numpy() for row, end in enumerate(ends)]
        longest = max(map(len, pieces))
        samples = np.zeros((len(pieces), longest), np.float32)
        mask = np.zeros((len(pieces), longest), np.int64)
        for row, piece in enumerate(pieces):
            if self._reads.get("do_normalize", True):
                exact = piece.astype(np.float64)
                piece = (exact - exact.mean()) / np.sqrt(exact.var() + VARIANCE_FLOOR)
            samples[row, : len(piece)], mask[row, : len(piece)] = piece, 1
        given = {"input_values": self._torch.from_numpy(samples).to(self._device)}
        if len(pieces) > 1:
            given["attention_mask"] = self._torch.from_numpy(mask).to(self._device)
        hidden = self._model(**given).last_hidden_state  # (b, frames, width)
        if self._head is not None:
            dense, bias, projection, offset = self._head
            affect = self._torch.tanh(hidden @ dense.T + bias) @ projection.T + offset
            hidden = self._torch.cat((hidden, affect), dim=2)
        return [
            hidden[row, : frames_for(len(piece))].float().cpu().numpy() for row, piece in enumerate(pieces)
        ]

    def _sized(self, picture: NDArray[np.uint8]) -> Any:
        """A picture as the model takes it: (3, side, side), scaled."""
        torch, reads = self._torch, self._reads
        taken = (
            torch.from_numpy(np.ascontiguousarray(picture)).to(self._device).permute(2, 0, 1)[None].float()
        )
        (height, width), cut = _target(reads, picture.shape[0], picture.shape[1], self._spec)
        mode = "bicubic" if reads.get("resample", 2) == BICUBIC else "bilinear"
        if (height, width) != picture.shape[:2]:
            taken = torch.nn.functional.interpolate(
                taken, (height, width), mode=mode, align_corners=False, antialias=True
            )
            taken = taken.round().clamp(0, 255)
        top, left = (height - cut) // 2, (width - cut) // 2
        pixels = taken[0, :, top : top + cut, left : left + cut] / 255
        mean, deviation = (
            torch.tensor(reads.get(name, [0.5] * 3), device=self._device).view(3, 1, 1)
            for name in ("image_mean", "image_std")
        )
        return (pixels - mean) / deviation


def _target(
    reads: Mapping[str, Any], height: int, width: int, spec: ModelSpec
) -> tuple[tuple[int, int], int]:
    """The size that a picture is brought to, and the side of the square that is cut from its middle."""
    size = reads.get("size")
    try:
        if isinstance(size, dict) and "shortest_edge" in size:
            short = int(size["shortest_edge"])
            scale = short / min(height, width)
            sized = max(short, round(height * scale)), max(short, round(width * scale))
            crop = reads.get("crop_size", short) if reads.get("do_center_crop", True) else short
            return sized, int(crop["height"] if isinstance(crop, dict) else crop)
        side = int(size["height"] if isinstance(size, dict) else size)  # type: ignore[arg-type]  # checked by int
    except (KeyError, TypeError, ValueError) as error:
        raise ModelIntegrityError(f"{PREPROCESSOR} of {spec.encoder_id} names no size of pictures") from error
    return (side, side), side


def _spec(folder: Path, name: str) -> ModelSpec:
    """For messages: what a folder holds is not known beforehand."""
    return ModelSpec(f"{folder.name}@folder", name, 0, 0)
