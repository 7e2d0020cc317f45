"""Checkpoints: one safetensors file that holds a network's weights and, in its header, its metadata.

Reading a header does not load torch, which takes seconds.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safetensors import SafetensorError, safe_open

from emi_models import EMOTIONS, MODALITIES
from emi_models.calibration import Calibration
from emi_models.console import printable
from emi_models.errors import CheckpointError
from emi_models.files import atomic_write
from emi_models.inputs import FusionShapes
from emi_models.libraries import require
from emi_models.targets import AMBIVALENCE, Target, targets_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emi_models import Modality
    from emi_models.networks.base import FusionNetwork

__all__ = [
    "FORMAT_VERSION",
    "TUNED_KEY",
    "CheckpointHeader",
    "LoadedCheckpoint",
    "calibrate_checkpoint",
    "content_hash",
    "load_checkpoint",
    "packaged_checkpoint",
    "read_header",
    "save_checkpoint",
    "tuned_folder",
]

FORMAT_VERSION: Final = 1
_KEY: Final = "emi_checkpoint"  # the one metadata entry, a JSON object
TUNED_KEY: Final = "tuned_{}"  # a note that names the folder of a modality's tuned encoder, next to the file
# Limits of what a file may announce, looked at before anything of that size is made: docs/decisions/0020.
MAX_FILE: Final = 2 << 30  # bytes; the largest system of the papers has 40 MB
MAX_HEADER: Final = 4 << 20  # bytes; ours have a few KB
MAX_FRAMES: Final = 1500  # of one modality in a window: 12 s at 125 a second
MAX_WINDOW: Final = 8_000_000  # values of a window; TAEMI's has 0.9 million
LONGEST_SPAN_S: Final = 60  # of a modality in a chunk of BAH
MAX_HEADS: Final = 32  # of attention, each of which compares all frames with all


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointHeader:
    """A checkpoint's metadata: what it is, how and on what data it was trained, its scores and its licence.

    `encoders` maps each modality to the id of the encoder whose features the network takes; `scores` maps a
    measure's name to its value. `config` is the system's own and holds everything but `modalities`. `spans_s`
    says how many seconds of a modality the network is to be shown, back from its newest frame, where it is
    not 12; only a network of the task `bah` is shown more.
    `emotions` are the names of what it gives, in order: the six, or targets of one's own, whose ranges stand
    in `ranges` where they are not 0 to 1. None where `config` names another task than `emi`.
    """

    system: str
    config: Mapping[str, object]
    modalities: tuple[Modality, ...]
    encoders: Mapping[str, str]
    data: str
    licence: str
    scores: Mapping[str, float]
    created_by: str
    emotions: tuple[str, ...] = EMOTIONS
    format_version: int = FORMAT_VERSION
    spans_s: Mapping[str, float] = field(default_factory=dict)
    # How far estimates may be from ratings, as `Calibration.to_json` writes it; empty: not calibrated.
    calibration: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[Target, ...]:
        """What a prediction's values stand for, in their order; of the task `bah`, one probability."""
        if self.task != "emi":
            return (Target(AMBIVALENCE),)
        return targets_named(self.emotions, self.ranges)

    @property
    def task(self) -> str:
        """What the network answers: `emi`, or `bah`."""
        return str(self.config.get("task", "emi"))

    @property
    def intervals(self) -> Calibration | None:
        """What 90 % intervals are made of; None if the checkpoint is not calibrated."""
        return Calibration.parse(self.calibration) if self.calibration else None

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of the windows that the network takes.

        Raises:
            CheckpointError: `config` names none, or impossible ones.
        """
        shapes = self.config.get("shapes")
        try:
            return FusionShapes(**(shapes if isinstance(shapes, dict) else {}))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the configuration of {self.system} has no shapes of a window ({error}); "
                "save the checkpoint again with this version"
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class LoadedCheckpoint:
    """A network in evaluation mode with its header, and the sha256 of the file that both came from."""

    network: FusionNetwork
    header: CheckpointHeader
    content_hash: str


def save_checkpoint(path: Path, network: FusionNetwork, header: CheckpointHeader) -> None:
    """Write the network's weights and metadata to `path`, whole or not at all.

    Raises:
        CheckpointError: the header contradicts the network, or a weight is not finite.
    """
    from safetensors.torch import save

    from emi_models.networks import SYSTEMS, describe_config, described_defaults

    config_type, network_type = SYSTEMS.get(header.system, (None, None))
    described = describe_config(network.config)
    if (
        network_type is not type(network)
        or config_type is None
        or {**described_defaults(config_type, described), **header.config} != described
        or header.modalities != network.config.modalities
    ):
        raise CheckpointError(
            "the header's system, config or modalities are not the network's; take them from the network"
        )
    try:
        _check_targets(header)
        _check_window(header.config)
    except ValueError as error:
        raise CheckpointError(f"nothing was saved, since it could not be loaded: {error}") from error
    tensors = {name: t.detach().float().cpu().contiguous() for name, t in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"weight {name} is not finite; nothing was saved, train again")
    metadata = {f.name: getattr(header, f.name) for f in fields(header)}
    if not header.ranges:  # as files were before there were any
        del metadata["ranges"]
    data = save(tensors, metadata={_KEY: json.dumps(metadata, sort_keys=True)})
    atomic_write(path, data)


def calibrate_checkpoint(path: Path, target: Path, calibration: Calibration) -> None:
    """Write a checkpoint again with a calibration in its header; its weights stay the same, to the bit.

    Raises:
        CheckpointError: the file is not a checkpoint.
        WriteError: it cannot be written.
    """
    from safetensors.numpy import save

    header = replace(read_header(path), calibration=calibration.to_json())
    with safe_open(path, framework="np") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    metadata = {f.name: getattr(header, f.name) for f in fields(header)}
    atomic_write(target, save(weights, metadata={_KEY: json.dumps(metadata, sort_keys=True)}))


def content_hash(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged_checkpoint(name: str) -> Path:
    """Where the checkpoint that ships with this package lies.

    Raises:
        CheckpointError: there is none of that name.
    """
    folder = Path(str(files("emi_models"))) / "checkpoints"
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise CheckpointError(
            f"no packaged checkpoint {name!r} (there are: {known}); give the path of a file"
        )
    return path


def read_header(path: Path, expect_encoders: Mapping[str, str] | None = None) -> CheckpointHeader:
    """The metadata of a checkpoint, without reading its weights.

    Args:
        path: a file that `save_checkpoint` wrote.
        expect_encoders: as for `load_checkpoint`.

    Raises:
        CheckpointError: there is no such file, it is not an emi-live checkpoint of a known format, or it is
            one for other encoders.
    """
    try:
        _check_size(path)
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} cannot be found; give the path of a checkpoint") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint: {printable(error, 300)}; fetch or save it again"
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(
            f"{path} is safetensors but no emi-live checkpoint; save it with save_checkpoint"
        )
    try:
        metadata = json.loads(metadata[_KEY])
        header = _parse(metadata)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has a header that cannot be understood: {printable(error, 300)}"
        ) from error
    for modality, running in (expect_encoders or {}).items():
        trained = header.encoders.get(modality, running)
        if trained != running:
            raise CheckpointError(
                f"{path} was trained on {modality} features of {trained}, but {running} is running; "
                "choose the bundle or the checkpoint that match"
            )
    return header


def load_checkpoint(path: Path, expect_encoders: Mapping[str, str] | None = None) -> LoadedCheckpoint:
    """The network that a checkpoint holds, on the CPU, in evaluation mode.

    Args:
        path: a file that `save_checkpoint` wrote.
        expect_encoders: the encoder id of each modality that will run; a checkpoint trained with other
            features is refused. A modality that is left out here or in the header is not compared.

    Raises:
        CheckpointError: the file is damaged, of another format or for other encoders, or does not fit itself.
        MissingPackageError: PyTorch is not installed.
    """
    header = read_header(path, expect_encoders)
    require("torch", extra="gpu", what="a network in PyTorch")
    import torch

    from emi_models.networks import build_network

    with torch.device("meta"):  # sizes are compared before anything of that size is allocated
        network = build_network(header.system, header.config, header.modalities)
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
            if found != expected:
                names = sorted(set(found.items()) ^ set(expected.items()))
                raise CheckpointError(
                    f"{path} does not hold the weights of its own configuration: "
                    f"{printable(names[0][0], 100)} is missing, "
                    "unexpected or of another shape; save it again"
                )
            for name in expected:  # by the header: nothing of that size is read yet
                if (kind := file.get_slice(name).get_dtype()) != "F32":
                    raise CheckpointError(
                        f"{path}: weight {name} is {kind}, not finite float32; fetch or save it again"
                    )
            # Copies: the file may be replaced while they are in use; and results depend in their last bit on
            # how weights are aligned in memory, which in the file depends on the length of its header.
            weights = {name: file.get_tensor(name).clone() for name in expected}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint: {printable(error, 300)}; fetch or save it again"
        ) from error
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{path}: weight {name} is not finite float32; the file is damaged, fetch it again"
            )
    network.load_state_dict(weights, assign=True)
    return LoadedCheckpoint(network.eval(), header, content_hash(path))


def tuned_folder(path: Path, header: CheckpointHeader, modality: Modality) -> Path | None:
    """The folder of the encoder that was trained with this checkpoint; None if it was not trained.

    Args:
        path: the checkpoint's file.
        header: its header.
        modality: whose encoder.

    Raises:
        CheckpointError: the folder is not there, or would lie elsewhere than next to the file.
    """
    named = header.notes.get(TUNED_KEY.format(modality))
    if named is None:
        return None
    parts = named.split("/")
    if named.startswith("/") or "\\" in named or ".." in parts:
        raise CheckpointError(
            f"{path} names the folder {printable(named, 100)}; it must lie next to the file"
        )
    folder = path.parent.joinpath(*parts)
    if not folder.is_dir():
        raise CheckpointError(
            f"{path} was trained together with its {modality} encoder, and {folder} is not there; copy the "
            "folder `encoders` of the run together with the checkpoint"
        )
    return folder


def _check_size(path: Path) -> None:
    """Return if file and header are of sizes that a checkpoint has; else raise ValueError or OSError."""
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is not a file")
    if size > MAX_FILE:
        raise ValueError(f"it has {size} bytes, the limit is {MAX_FILE}")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(MAX_HEADER, size):
        raise ValueError(f"it announces a header of {header} bytes, the limit is {min(MAX_HEADER, size)}")


def _check_window(config: Mapping[str, object]) -> None:
    """Return if a window of this configuration fits in memory many times over; else raise ValueError."""
    shapes, heads = config.get("shapes"), config.get("heads", 1)
    if not isinstance(shapes, dict):
        return  # refused with better words when the network is built
    sizes = {name: size for name, size in shapes.items() if isinstance(size, int)}
    frames = {name: sizes.get(f"{name}_frames", 1) for name in ("vision", "audio")}
    values = sum(frames[name] * sizes.get(f"{name}_dim", 1) for name in frames) + sizes.get("text_dim", 1)
    if max(frames.values()) > MAX_FRAMES or values > MAX_WINDOW:
        raise ValueError(
            f"a window of {frames['vision']} frames of vision and {frames['audio']} of audio has {values} "
            f"values; at most {MAX_FRAMES} frames and {MAX_WINDOW} values are run"
        )
    if isinstance(heads, int) and heads > MAX_HEADS:
        raise ValueError(f"{heads} heads of attention; at most {MAX_HEADS} are run")


def _parse(metadata: object) -> CheckpointHeader:
    """A header from decoded JSON; raises TypeError or ValueError with what is wrong."""
    if not isinstance(metadata, dict) or metadata.get("format_version") != FORMAT_VERSION:
        version = metadata.get("format_version") if isinstance(metadata, dict) else None
        raise ValueError(f"format version {version!r}, this emi-live reads {FORMAT_VERSION}")
    tuples = {name: tuple(metadata[name]) for name in ("modalities", "emotions")}
    header = CheckpointHeader(**{**metadata, **tuples})
    if not header.modalities or not set(header.modalities) <= set(MODALITIES):
        raise ValueError(f"modalities {header.modalities!r}")
    for name, kind in (("system", str), ("data", str), ("licence", str), ("created_by", str)):
        if not isinstance(getattr(header, name), kind):
            raise TypeError(f"{name} is not text")
    for name in ("config", "encoders", "scores", "notes", "spans_s", "calibration", "ranges"):
        if not isinstance(getattr(header, name), dict):
            raise TypeError(f"{name} is not an object")
    _check_targets(header)
    _check_spans(header.spans_s, 12 if header.task == "emi" else LONGEST_SPAN_S)
    Calibration.parse(header.calibration)
    _check_window(header.config)
    if missing := set(header.modalities) - set(header.encoders):
        raise ValueError(f"no encoder is named for {', '.join(sorted(missing))}")
    return header


def _check_targets(header: CheckpointHeader) -> None:
    """Return if the header names as many targets as the network gives values; else raise ValueError."""
    wanted = header.config.get("targets", len(EMOTIONS)) if header.task == "emi" else 0
    if len(header.emotions) != wanted:
        raise ValueError(f"{len(header.emotions)} emotions are named, and the network gives {wanted}")
    if header.emotions or header.ranges:
        targets_named(header.emotions, header.ranges)


def _check_spans(spans_s: Mapping[str, object], most: int) -> None:
    for modality, span in spans_s.items():
        if modality not in MODALITIES or not isinstance(span, int | float) or not 0 < span <= most:
            raise ValueError(f"span {modality!r}: {span!r} s; it must be a modality's, in (0, {most}]")
