"""Encoders that are trained together with the fusion network, on clips' sound, words and face crops.

TAEMI and Semantic Matters fine-tune their audio and text encoders with everything else, by one AdamW at 1e-4;
Dual-Stage trains all three in its stage I and freezes them in stage II. Here `TrainedEncoders` holds the
models in PyTorch, `emi_models.training.media_windows` gives what they read, and the features that they make
take the place of the stored ones in each window. So every objective of `emi_models.training.papers` works
with both.

Three things of the models' own training are left out, since live use has none of them and a resumed run must
give the same numbers: wav2vec 2.0's masking of features (SpecAugment), which draws from numpy's generator,
its layer drop, and the pooling layers that nothing reads.

`save_encoders` writes the models as transformers' folders, which `emi-live` and `emi extract` load as any
other. LoRA's matrices are added into the weights first. `TunedClips` shows a checkpoint's encoders to
`emi eval`, computed by the classes that run live.
"""

from __future__ import annotations

import json
import shutil
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from emi_models import MODALITIES
from emi_models.checkpoint import TUNED_KEY, tuned_folder
from emi_models.data.clip import FeatureTrack
from emi_models.data.media import media_path, read_media
from emi_models.encoders.pretrained import TUNED, WEIGHTS, quiet_transformers
from emi_models.encoders.text import TransformerTextEncoder, identify_text
from emi_models.encoders.vit import VitEncoder, identify_face
from emi_models.encoders.wav2vec import (
    Wav2vecEncoder,
    frame_ends_ns,
    frames_for,
    identify_speech,
)
from emi_models.errors import TrainingError
from emi_models.libraries import require
from emi_models.training.media_windows import MediaReaders, with_media
from emi_models.training.recipe import Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.data.clip import Clip, ClipSet
    from emi_models.inputs import FusionInputs, FusionShapes
    from emi_models.training.config import EncoderSettings
    from emi_models.training.media_windows import MediaInputs

    LiveEncoder = VitEncoder | Wav2vecEncoder | TransformerTextEncoder

__all__ = [
    "TrainedEncoders",
    "TunedClips",
    "encoder_folders",
    "open_encoder",
    "save_encoders",
    "tuned_notes",
]

# Where transformers keeps a model's layers, by its type.
_LAYERS: Final = ("encoder.layer", "encoder.layers", "layers", "layer")
_LORA_TARGETS: Final = {
    "audio": ["q_proj", "v_proj"],
    "text": ["query", "value"],
    "vision": ["query", "value"],
}
_SIDECARS: Final = (".json", ".txt", ".model")  # tokenizer and preprocessor, copied next to tuned weights


def open_encoder(modality: Modality, folder: Path) -> LiveEncoder:
    """The encoder in a folder of transformers' format, as live use opens it.

    Raises:
        ModelUnavailableError: a file is not in the folder.
        ModelIntegrityError: it holds a model of another kind, or a damaged one.
    """
    if modality == "vision":
        return VitEncoder(folder, identify_face(folder))
    if modality == "audio":
        return Wav2vecEncoder(folder, identify_speech(folder))
    return TransformerTextEncoder(folder, identify_text(folder))


class TrainedEncoders(nn.Module):
    """The models that are trained, by modality, each opened as live use opens it.

    Args:
        folders: where each model is, in transformers' format.
        settings: what of them is trained, and how.

    Raises:
        TrainingError: a setting names a layer or a modality that there is not.
        MissingPackageError: LoRA was asked for and peft is not installed.
    """

    def __init__(self, folders: Mapping[Modality, Path], settings: EncoderSettings) -> None:
        super().__init__()
        self.folders = {m: Path(folders[m]) for m in MODALITIES if m in folders}
        self.modalities: tuple[Modality, ...] = tuple(self.folders)
        self.settings = settings
        self.base_ids: dict[Modality, str] = {}
        self.models = nn.ModuleDict()
        self.head = nn.ParameterList()  # of audio: dense, bias, projection, offset; empty without
        self.by_one = False  # whether sound goes through the model clip by clip
        self.active: tuple[Modality, ...] = self.modalities
        read: dict[str, Any] = {}
        for modality, folder in self.folders.items():
            encoder = open_encoder(modality, folder)
            self.base_ids[modality] = encoder.encoder_id
            self.models[modality] = self._prepared(modality, encoder.model)
            if isinstance(encoder, Wav2vecEncoder):
                self.head.extend(nn.Parameter(tensor.clone()) for tensor in encoder.head)
                # A norm over time would see the padding of a batch.
                self.by_one = encoder.model.config.feat_extract_norm == "group"
                read["normalises"] = encoder.normalises
            elif isinstance(encoder, VitEncoder):
                read["mean"], read["deviation"] = encoder.normalisation
            else:
                read["tokenizer"] = encoder.tokenizer
        self.reads = MediaReaders(**read)
        self._trained = self._choose()

    def _prepared(self, modality: Modality, model: Any) -> nn.Module:
        for name, value in (("apply_spec_augment", False), ("layerdrop", 0.0)):
            if hasattr(model.config, name):
                setattr(model.config, name, value)
        if self.settings.checkpointing:
            _checkpoint(model)
        if self.settings.lora_rank:
            require("peft", extra="lora", what="encoders.lora_rank")
            from peft import LoraConfig, get_peft_model

            lora = LoraConfig(
                r=self.settings.lora_rank,
                lora_alpha=self.settings.lora_alpha,
                target_modules=_LORA_TARGETS[modality],
            )
            with _without_future_warnings():
                model = get_peft_model(model, lora)
        prepared: nn.Module = model
        return prepared

    def _choose(self) -> dict[Modality, list[str]]:
        """The names of the parameters that may be trained, by modality."""
        unknown = set(self.settings.frozen_layers) - set(self.modalities)
        if unknown:
            raise TrainingError(
                f"encoders.frozen_layers names {sorted(unknown)[0]}, which is not trained; trained are "
                f"{', '.join(self.modalities)}"
            )
        chosen: dict[Modality, list[str]] = {}
        for modality in self.modalities:
            model = self.models[modality]
            names = [f"models.{modality}.{name}" for name, _ in model.named_parameters()]
            if self.settings.lora_rank:
                names = [name for name in names if "lora_" in name]
            elif modality in self.settings.frozen_layers:
                still = self._still(modality, model, self.settings.frozen_layers[modality])
                names = [name for name in names if name not in still]
            if modality == "audio":
                names += [f"head.{i}" for i in range(len(self.head))]
            chosen[modality] = names
        return chosen

    @staticmethod
    def _still(modality: Modality, model: nn.Module, count: int) -> set[str]:
        """What `frozen_layers` leaves as it is: all before the layers, and the first `count` of them."""
        root = next(name for name in _LAYERS if _has(model, name))
        layers = model.get_submodule(root)
        if count > len(layers):  # type: ignore[arg-type]  # a ModuleList
            raise TrainingError(
                f"encoders.frozen_layers.{modality} is {count}, and the model has {len(layers)} layers"  # type: ignore[arg-type]
            )
        late = {name for name, _ in model.named_parameters() if name.startswith(root + ".")}
        late = {name for name in late if int(name[len(root) + 1 :].partition(".")[0]) >= count}
        last = {name for name, _ in model.named_parameters() if name.rpartition(".")[0] in _NORMS}
        return {f"models.{modality}.{name}" for name, _ in model.named_parameters()} - {
            f"models.{modality}.{name}" for name in late | last
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which opens the folders itself: wav2vec 2.0's weight norm cannot be sent."""
        return _reopened, (self.folders, self.settings, self.tuned_state())

    def begin(self, modalities: Sequence[Modality], rate: float) -> list[Group]:
        """Train these modalities, the others stand still; gives what the optimiser is to train, and how fast.

        A model that stands still is in evaluation mode and costs no memory for gradients.
        """
        self.active = tuple(m for m in self.modalities if m in modalities) if rate else ()
        self.requires_grad_(False)
        named = dict(self.named_parameters())
        parameters = [named[name] for m in self.active for name in self._trained[m]]
        for parameter in parameters:
            parameter.requires_grad_(True)
        self.train(self.training)
        return [Group(parameters, rate * self.settings.rate)] if parameters else []

    def train(self, mode: bool = True) -> Self:
        """As of any module, but models that stand still stay in evaluation mode."""
        super().train(mode)
        for modality in self.modalities:
            if modality not in self.active:
                self.models[modality].eval()
        return self

    def forward(self, inputs: MediaInputs) -> FusionInputs:
        """The windows with the models' features in place of the stored ones, (B, T, D) and (B, D)."""
        window = inputs.window
        for modality in self.modalities:
            with torch.set_grad_enabled(torch.is_grad_enabled() and modality in self.active):
                window = getattr(self, f"_{modality}")(inputs, window)
        return window

    def tuned_state(self) -> dict[str, Tensor]:
        """The parameters that may be trained, on the CPU, by their names here."""
        named = dict(self.named_parameters())
        return {
            name: named[name].detach().cpu().contiguous().clone()
            for names in self._trained.values()
            for name in names
        }

    def load_tuned(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `tuned_state` gave."""
        named = dict(self.named_parameters())
        with torch.no_grad():
            for name, tensor in state.items():
                named[name].copy_(tensor)

    def merged(self) -> Iterator[tuple[Modality, Any]]:
        """Each model as transformers has it, LoRA's matrices added into its weights."""
        for modality in self.modalities:
            model: Any = self.models[modality]
            with _without_future_warnings():
                merged = model.merge_and_unload() if self.settings.lora_rank else model
            yield modality, merged

    def _audio(self, inputs: MediaInputs, window: FusionInputs) -> FusionInputs:
        sound, samples, frames = inputs.sound, inputs.samples, inputs.frames
        assert sound is not None  # noqa: S101  # MediaWindows gives all three together
        assert samples is not None  # noqa: S101
        assert frames is not None  # noqa: S101
        longest = frames_for(sound.shape[1])
        model: Any = self.models["audio"]
        width = model.config.hidden_size + (3 if len(self.head) else 0)
        if not longest:
            values = window.audio.new_zeros(len(samples), 1, width)
            return replace(window, audio=values, audio_mask=values[..., 0] > 0, audio_present=frames > 0)
        if self.by_one:
            rows = [
                model(sound[i : i + 1, : int(n)]).last_hidden_state[0] if frames_for(int(n)) else None
                for i, n in enumerate(samples)
            ]
            hidden = window.audio.new_zeros(len(samples), longest, model.config.hidden_size)
            padded = [
                hidden[i] if row is None else nn.functional.pad(row, (0, 0, 0, longest - len(row)))
                for i, row in enumerate(rows)
            ]
            hidden = torch.stack(padded)
        else:
            mask = torch.arange(sound.shape[1], device=sound.device) < samples.clamp(min=400)[:, None]
            hidden = model(sound, attention_mask=mask.long()).last_hidden_state
        if len(self.head):
            dense, bias, projection, offset = self.head
            affect = torch.tanh(hidden @ dense.T + bias) @ projection.T + offset
            hidden = torch.cat((hidden, affect), dim=2)
        mask = torch.arange(hidden.shape[1], device=sound.device) < frames[:, None]
        return replace(window, audio=hidden.float(), audio_mask=mask, audio_present=frames > 0)

    def _text(self, inputs: MediaInputs, window: FusionInputs) -> FusionInputs:
        found = self.models["text"](input_ids=inputs.tokens, attention_mask=inputs.token_mask)
        return replace(window, text=found.last_hidden_state[:, 0].float())

    def _vision(self, inputs: MediaInputs, window: FusionInputs) -> FusionInputs:
        pixels, owners, places = inputs.pixels, inputs.owners, inputs.places
        assert pixels is not None  # noqa: S101  # MediaWindows gives all three together
        assert owners is not None  # noqa: S101
        assert places is not None  # noqa: S101
        model: Any = self.models["vision"]
        longest = int(places.max()) + 1 if len(places) else 1
        values = window.vision.new_zeros(window.batch, longest, model.config.hidden_size)
        mask = torch.zeros(window.batch, longest, dtype=torch.bool, device=values.device)
        if len(places):
            features = model(pixel_values=pixels).last_hidden_state.mean(dim=1).float()
            values = values.index_put((owners, places), features)
            mask = mask.index_put((owners, places), torch.ones_like(places, dtype=torch.bool))
        return replace(window, vision=values, vision_mask=mask, vision_present=mask.any(dim=1))


def _reopened(
    folders: Mapping[Modality, Path], settings: EncoderSettings, state: Mapping[str, Tensor]
) -> TrainedEncoders:
    encoders = TrainedEncoders(folders, settings)
    encoders.load_tuned(state)
    return encoders


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """A span in which deprecated names of transformers are used quietly, here and by peft."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _checkpoint(model: Any) -> None:
    """Have the model's states computed again in the backward pass."""
    with _without_future_warnings():
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


_NORMS: Final = ("encoder.layer_norm", "layernorm", "encoder.final_layernorm")  # behind the last layer


def _has(model: nn.Module, name: str) -> bool:
    try:
        return isinstance(model.get_submodule(name), nn.ModuleList)
    except AttributeError:
        return False


def save_encoders(encoders: TrainedEncoders, folder: Path) -> dict[Modality, str]:
    """Write each model into a folder of its modality's name, and give its new id.

    The folders are in transformers' format, weights in float32. `config.json` says which model it was tuned
    from, so that a model of the published sizes does not go by the published name.
    """
    ids: dict[Modality, str] = {}
    for modality, model in encoders.merged():
        place = folder / modality
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with quiet_transformers():
            model.save_pretrained(place)
        if modality == "audio" and len(encoders.head):
            names = ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias")
            head = {
                f"classifier.{name}": tensor.detach().cpu().contiguous()
                for name, tensor in zip(names, encoders.head, strict=True)
            }
            save_file(load_file(place / WEIGHTS) | head, place / WEIGHTS, metadata={"format": "pt"})
        source = encoders.folders[modality]
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        original = json.loads((source / "config.json").read_text(encoding="utf-8"))
        # Masking and layer drop as the model came; the rest as transformers writes it.
        config |= {name: original[name] for name in ("apply_spec_augment", "layerdrop") if name in original}
        config[TUNED] = encoders.base_ids[modality]
        (place / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for file in source.iterdir():
            if file.suffix in _SIDECARS and not (place / file.name).exists() and "index" not in file.name:
                shutil.copyfile(file, place / file.name)
        ids[modality] = open_encoder(modality, place).encoder_id
    return ids


class TunedClips:
    """Clips as the tuned encoders of a checkpoint see them: a `ClipSet` over a folder with media.

    Features are computed whenever a clip is loaded, by the classes that run live, each clip as a whole. Words
    have one row, at the stored features' last one: what is said after a part of a clip needs
    `emi extract` with these encoders.

    Raises:
        CheckpointError: a folder that the checkpoint names is not next to it.
        TrainingError: the clips have no media, or were not made by the encoders that were tuned.
    """

    def __init__(self, clips: ClipSet, checkpoint: Path, header: CheckpointHeader) -> None:
        self.clips = with_media(clips)
        self._encoders: dict[Modality, LiveEncoder] = {
            m: open_encoder(m, folder)
            for m in MODALITIES
            if (folder := tuned_folder(checkpoint, header, m)) is not None
        }
        self.encoders: Mapping[Modality, str] = {
            **self.clips.encoders,
            **{m: encoder.encoder_id for m, encoder in self._encoders.items()},
        }

    @property
    def shapes(self) -> FusionShapes:
        """The set's own, with the widths of these encoders."""
        dims = {f"{m}_dim": encoder.dim for m, encoder in self._encoders.items()}
        return replace(self.clips.shapes, **dims)

    @property
    def description(self) -> str:
        """The set's own."""
        return self.clips.description

    @property
    def licence(self) -> str:
        """The set's own."""
        return self.clips.licence

    def ids(self, split: str) -> tuple[str, ...]:
        """The set's own."""
        return self.clips.ids(split)

    def targets(self, split: str) -> NDArray[np.float32]:
        """The set's own."""
        return self.clips.targets(split)

    def load(self, clip_id: str) -> Clip:
        """A clip with these encoders' features in place of the stored ones."""
        clip = self.clips.load(clip_id)
        found: dict[str, Any] = {}
        text = self._encoders.get("text")
        if isinstance(text, TransformerTextEncoder):
            words = self.clips.transcript(clip_id)
            if words and len(clip.text.t_ns):
                found["text"] = FeatureTrack(clip.text.t_ns[-1:], text.encode([words]))
            else:
                found["text"] = FeatureTrack.empty(text.dim)
        voice, face = self._encoders.get("audio"), self._encoders.get("vision")
        if voice is not None or face is not None:
            media = read_media(media_path(self.clips.folder, clip_id), faces=face is not None)
            if isinstance(voice, Wav2vecEncoder):
                frames = voice.encode(media.sound)
                found["audio"] = FeatureTrack(media.sound_ns + frame_ends_ns(len(frames)), frames)
            if isinstance(face, VitEncoder):
                found["vision"] = FeatureTrack(media.faces_ns, face.encode(media.faces))
        return replace(clip, **found)


def encoder_folders(clips: ClipSet, settings: EncoderSettings) -> dict[Modality, Path]:
    """Where the models to train are: as settings name them, else in the model store.

    Raises:
        TrainingError: the clips have no features of such a modality, or theirs are of another encoder.
        ModelUnavailableError: the model is not on this machine.
    """
    from emi_models.store import ModelStore

    published = {spec.encoder_id: spec.store_name for spec in _published() if spec.store_name}
    folders: dict[Modality, Path] = {}
    for modality in settings.train:
        stored = clips.encoders.get(modality)
        if stored is None:
            raise TrainingError(
                f"--train-encoders {modality}: these clips have no {modality}; they have "
                f"{', '.join(clips.encoders) or 'none'}"
            )
        named = settings.models.get(modality)
        if named is None and stored not in published:
            raise TrainingError(
                f"these clips' {modality} features are of {stored}, which is a folder of yours: name it with "
                f"--set encoders.models.{modality}=FOLDER"
            )
        folder = ModelStore(None).locate(published[stored]) if named is None else named.expanduser()
        if not folder.is_dir():
            raise TrainingError(f"encoders.models.{modality}: there is no folder {folder}")
        identify = {"vision": identify_face, "audio": identify_speech, "text": identify_text}[modality]
        found = identify(folder).encoder_id
        if found != stored:
            raise TrainingError(
                f"{folder} holds {found}, and these clips' {modality} features are of {stored}; name the "
                "model that the clips were extracted with"
            )
        folders[modality] = folder
    return folders


def _published() -> tuple[Any, ...]:
    from emi_models.encoders.text import GTE_BASE
    from emi_models.encoders.vit import VIT_BASE
    from emi_models.encoders.wav2vec import AUDEERING

    return VIT_BASE, AUDEERING, GTE_BASE


def tuned_notes(ids: Mapping[Modality, str]) -> dict[str, str]:
    """What a checkpoint's notes say of its tuned encoders: folders next to it, by modality."""
    return {TUNED_KEY.format(modality): f"encoders/{modality}" for modality in ids}
