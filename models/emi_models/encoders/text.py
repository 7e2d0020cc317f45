"""BERT-like text encoders of the `taemi` bundle, by transformers; that of `compact` is in sentence.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_models.device import choose_device, on_device
from emi_models.encoders.pretrained import (
    WEIGHTS,
    ModelSpec,
    check_config,
    identify,
    is_tuned,
    load_model,
    quiet_transformers,
    require,
    sizes_of,
)
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.marked import marked_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "GTE_BASE",
    "GTE_EN_MLM_BASE",
    "TEXT_CLASSES",
    "RemoteCode",
    "TransformerTextEncoder",
    "code_options",
    "identify_text",
]

MAX_TOKENS: Final = 128  # 12 s of speech are about 40 words
VOCABULARIES: Final = ("tokenizer.json", "vocab.txt")  # either will do


@dataclass(frozen=True, slots=True)
class RemoteCode:
    """Python code of a model that transformers does not know, in a separate repository on the hub."""

    repository: str
    revision: str  # a commit: its content cannot change


GTE_BASE: Final = ModelSpec("thenlper/gte-base", "bert", 768, 12, store_name="gte-base")
GTE_EN_MLM_BASE: Final = ModelSpec("Alibaba-NLP/gte-en-mlm-base", "new", 768, 12)
# Of transformers itself. All have a token of the whole text in front: [CLS], or <s> by another name.
TEXT_CLASSES: Final = {"bert": "BertModel", "roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel"}
REMOTE_CODE: Final = {
    GTE_EN_MLM_BASE.model_type: RemoteCode("Alibaba-NLP/new-impl", "40ced75c3017eb27626c9d4ea981bde21a2662f4")
}


def identify_text(folder: Path, published: ModelSpec = GTE_BASE) -> ModelSpec:
    """The text model in the folder; raises as `identify` does."""
    kinds = {*TEXT_CLASSES, GTE_EN_MLM_BASE.model_type}
    found = identify(folder, published, kinds)
    known = sizes_of(found) == sizes_of(GTE_EN_MLM_BASE) and not is_tuned(folder, published)
    return GTE_EN_MLM_BASE if known else found


class TransformerTextEncoder:
    """Turns texts into the last hidden state of their first token, [CLS], as it is: not of length 1.

    Texts are taken as they are; the model's tokenizer does what the model needs, and they are cut at 128
    tokens. In float32; holds no state; one thread at a time.

    `thenlper/gte-base` was itself trained with the mean over tokens (Li et al. 2023, arXiv:2308.03281); [CLS]
    is what TAEMI and Semantic Matters feed to their fusion.
    """

    def __init__(
        self,
        folder: str | Path,
        spec: ModelSpec = GTE_BASE,
        *,
        device: str = "cpu",
        allow_remote_code: bool = False,
    ) -> None:
        """Load the model from a folder in transformers' format; nothing is fetched and nothing is unpickled.

        Args:
            folder: holds config.json, model.safetensors, and tokenizer.json or vocab.txt.
            spec: which model it must be.
            device: that it runs on, as of `choose_device`.
            allow_remote_code: run code that came with a model, at its pinned revision, from the hub's cache
                on this machine. `GTE_EN_MLM_BASE` needs it, and has it nowhere else.

        Raises:
            TrainingError: there is no such device.
            ModelUnavailableError: a file is not here, or the model needs code that may not run.
            ModelIntegrityError: the folder holds another model, or a damaged one.
        """
        folder = Path(folder)
        require(folder, spec, "config.json", WEIGHTS)
        if not any((folder / name).is_file() for name in VOCABULARIES):
            require(folder, spec, VOCABULARIES[0])
        config = check_config(folder, spec)
        options = code_options(folder, config, spec, allow_remote_code)
        import torch
        import transformers

        self._torch, self.device = torch, choose_device(device)
        model = (
            load_model(folder, spec, transformers.AutoModel, **options)
            if options
            else load_model(
                folder, spec, getattr(transformers, TEXT_CLASSES[spec.model_type]), add_pooling_layer=False
            )
        )
        self._model: Any = on_device(model, self.device)
        with quiet_transformers():
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, **options
            )
        if len(self._tokenizer) > config["vocab_size"]:
            raise ModelIntegrityError(
                f"the tokenizer in {folder} has {len(self._tokenizer)} tokens and the model "
                f"{config['vocab_size']}: {spec.remedy}"
            )
        self.encoder_id = spec.encoder_id
        self.dim = spec.hidden_size

    @property
    def model(self) -> Any:
        """The model as transformers has it, in evaluation mode."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, as transformers has it."""
        return self._tokenizer

    def encode(self, texts: Sequence[str], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Features, shape (len(texts), 768); the caller owns them.

        The same call gives the same bits; a text's vector depends on its batch mates by no more than
        rounding. An empty text gets a vector too, that of no words: do not ask for it.
        """
        torch = self._torch
        states = torch.zeros(len(texts), self.dim)
        # Batches of like length waste no work on padding; results go back to where their text stands.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                tokens = self._tokenizer(
                    [texts[i] for i in rows],
                    padding=True,
                    truncation=True,
                    max_length=MAX_TOKENS,
                    return_tensors="pt",
                ).to(self.device)
                states[rows] = self._model(**tokens).last_hidden_state[:, 0].cpu()
        result: NDArray[np.float32] = states.numpy()
        return result

    def encode_marked(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The last hidden state at the mark of each text, (len(texts), D): the mean over the mark's tokens.

        See `emi_models.marked`.

        Raises:
            ModelUnavailableError: the model's tokenizer does not say where its tokens stand in the text.
        """
        if not self._tokenizer.is_fast:
            raise ModelUnavailableError(
                f"{self.encoder_id} comes without tokenizer.json, so the mark cannot be found in its tokens; "
                "give a folder that has one"
            )
        torch = self._torch
        states = torch.zeros(len(texts), self.dim)
        with torch.inference_mode():
            for row, text in enumerate(texts):
                ids, places = marked_tokens(text, self._tokens, MAX_TOKENS)
                given = torch.tensor([ids], device=self.device)
                hidden = self._model(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state
                states[row] = hidden[0, places].mean(dim=0).cpu()
        result: NDArray[np.float32] = states.numpy()
        return result

    def _tokens(self, text: str) -> Any:
        """A text's tokens with their places, at most `MAX_TOKENS`."""
        return self._tokenizer(text, truncation=True, max_length=MAX_TOKENS).encodings[0]


def code_options(folder: Path, config: Mapping[str, Any], spec: ModelSpec, allowed: bool) -> dict[str, Any]:
    """What `from_pretrained` needs to run the model's own code; nothing for a model without.

    Only code of the pinned repository and commit: a folder may not bring its own.
    """
    code = REMOTE_CODE.get(spec.model_type)
    if code is None:
        return {}
    if not allowed:
        raise ModelUnavailableError(
            f"{spec.encoder_id} runs Python code from {code.repository}: read it, then allow it with "
            f"allow_remote_code, or use {GTE_BASE.encoder_id}"
        )
    named = str(config.get("auto_map", {}).get("AutoModel", ""))
    if named.partition("--")[0] != code.repository:
        raise ModelIntegrityError(
            f"{folder} wants to run {named or 'no code'}, and only {code.repository} at "
            f"{code.revision[:12]} may run: {spec.remedy}"
        )
    from huggingface_hub import try_to_load_from_cache

    for name in ("configuration.py", "modeling.py"):
        if not isinstance(try_to_load_from_cache(code.repository, name, revision=code.revision), str):
            raise ModelUnavailableError(
                f"{name} of {code.repository} is not in the hub's cache: run `hf download "
                f"{code.repository} --revision {code.revision}`"
            )
    return {"trust_remote_code": True, "code_revision": code.revision}
