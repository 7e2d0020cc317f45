"""Opens a model in transformers' format, and refuses any that is not the one a bundle names.

`identify` says which model a folder holds that a setting names. Checkpoints name their encoders by id, so a
model of other sizes must not have the published model's id: its id is made of architecture, width, layers and
the sha256 of its weights, e.g. `vit-32x2@1f3a5c7e9b02`. Training and live use find the same id.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from emi_models.errors import ModelIntegrityError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = [
    "WEIGHTS",
    "ModelSpec",
    "check_config",
    "derived",
    "identify",
    "load_model",
    "quiet_transformers",
    "read_json",
    "require",
    "sizes_of",
]

WEIGHTS: Final = "model.safetensors"
TRAINING_ONLY: Final = (
    "masked_spec_embed"  # wav2vec 2.0 masks frames with it in training; nothing else reads it
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a folder must hold to be the model that a bundle names.

    Two models of one architecture cannot be told apart by it: that takes the hashes of `emi models pull`.

    Attributes:
        encoder_id: what checkpoints call the encoder: its name on the hub, or with `@` a name of our own.
        model_type: the architecture, as `config.json` calls it.
        hidden_size: the width of its hidden states.
        layers: how many transformer layers it has.
        store_name: what `emi models` calls it; empty for one that it does not fetch.
    """

    encoder_id: str
    model_type: str
    hidden_size: int
    layers: int
    store_name: str = ""

    @property
    def remedy(self) -> str:
        """How the model comes to this machine, as the end of an error's line."""
        if "@" in self.encoder_id:
            return "name a folder that holds it whole, as `save_pretrained` writes it"
        by_hand = f"name a folder made by `hf download {self.encoder_id} --local-dir FOLDER`"
        return f"run `emi models pull {self.store_name}`, or {by_hand}" if self.store_name else by_hand


def require(folder: Path, spec: ModelSpec, *files: str) -> None:
    """Return if all files are in the folder.

    Raises:
        ModelUnavailableError: some are not.
    """
    missing = [name for name in files if not (folder / name).is_file()]
    if not missing:
        return
    pickled = any(folder.glob("*.bin")) and WEIGHTS in missing
    why = "; weights in a .bin file are pickled and not read" if pickled else ""
    raise ModelUnavailableError(
        f"{folder} lacks {', '.join(missing)} of {spec.encoder_id}{why}: {spec.remedy}"
    )


def read_json(path: Path, spec: ModelSpec) -> dict[str, Any]:
    """The object in a JSON file of the model.

    Raises:
        ModelIntegrityError: it is not one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelIntegrityError(f"{path} cannot be read ({error}): {spec.remedy}") from error
    if not isinstance(found, dict):
        raise ModelIntegrityError(f"{path} is not a JSON object: {spec.remedy}")
    return found


def check_config(folder: Path, spec: ModelSpec) -> dict[str, Any]:
    """The model's `config.json`, which agrees with `spec`.

    Raises:
        ModelIntegrityError: it is another model's.
    """
    config = read_json(folder / "config.json", spec)
    found = (config.get("model_type"), config.get("hidden_size"), config.get("num_hidden_layers"))
    wanted = (spec.model_type, spec.hidden_size, spec.layers)
    if found != wanted:
        raise ModelIntegrityError(
            f"{folder} holds another model than {spec.encoder_id}: type, width and layers are "
            f"{', '.join(map(str, found))}, not {', '.join(map(str, wanted))}: {spec.remedy}"
        )
    return config


def load_model(folder: Path, spec: ModelSpec, model_class: Any, **options: Any) -> Any:
    """The model, in float32, on the CPU and in evaluation mode; nothing is fetched or unpickled.

    transformers fills weights that a file lacks with random numbers; here that is an error.

    Args:
        folder: holds the files.
        spec: for messages.
        model_class: transformers' class of the model.
        options: for its `from_pretrained`.

    Raises:
        ModelIntegrityError: the weights are damaged, or some are missing.
    """
    import torch
    from safetensors import SafetensorError

    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelIntegrityError(
            f"{folder} cannot be loaded as {spec.encoder_id} ({reason}): {spec.remedy}"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if not name.endswith(TRAINING_ONLY))
    if missing:
        raise ModelIntegrityError(
            f"{folder / WEIGHTS} lacks {len(missing)} weights of {spec.encoder_id}, "
            f"{missing[0]} among them: {spec.remedy}"
        )
    # Copies: transformers maps the file, so that weights lie in memory as the length of its header has it,
    # and results depend on that in their last bits.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model.eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """A span in which transformers draws no progress bar and logs errors only.

    It reports each weight that is not used, as those of a head; what matters of that is checked here. The
    switches are the whole process's.
    """
    from transformers.utils import logging

    level, bar_was_shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar_was_shown:
            logging.enable_progress_bar()


HASH_DIGITS: Final = 12
Spec = TypeVar("Spec", bound=ModelSpec)


def identify(folder: Path, published: Spec, kinds: Collection[str]) -> Spec:
    """Which model a folder holds: the published one by its sizes, else one with its own id.

    Args:
        folder: in transformers' format.
        published: what a model of these sizes is called.
        kinds: architectures that can run here, as `config.json` calls them.

    Raises:
        ModelUnavailableError: a file is not in the folder.
        ModelIntegrityError: it holds a model of another kind, or a damaged one.
    """
    require(folder, published, "config.json", WEIGHTS)
    config = read_json(folder / "config.json", published)
    kind: Any = config.get("model_type")
    width: Any = config.get("hidden_size")
    layers: Any = config.get("num_hidden_layers")
    if kind not in kinds or not (_is_size(width) and _is_size(layers)):
        raise ModelIntegrityError(
            f"{folder} holds a model of type {kind}, width {width} and {layers} layers; what can run here is "
            f"{' or '.join(sorted(kinds))}: {published.remedy}"
        )
    found = replace(published, model_type=kind, hidden_size=width, layers=layers)
    return published if found == published else derived(folder, found)


def derived(folder: Path, spec: Spec) -> Spec:
    """The same model with its own id."""
    with (folder / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]
    name = f"{spec.model_type}-{spec.hidden_size}x{spec.layers}@{digest}"
    return replace(spec, encoder_id=name, store_name="")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def sizes_of(spec: ModelSpec) -> tuple[str, int, int]:
    """Architecture, width and layers."""
    return spec.model_type, spec.hidden_size, spec.layers
