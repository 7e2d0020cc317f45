"""The trained network as a folder that faster-whisper loads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_bench.micro_whisper.network import ALIGNMENT_HEADS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from emi_bench.micro_whisper.network import MicroWhisper

__all__ = ["QUANTISATION", "export"]

QUANTISATION: Final = "int8"
COPIED: Final = ("tokenizer.json", "preprocessor_config.json")


def export(network: MicroWhisper, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.bin, config.json, vocabulary.json and the files that faster-whisper asks for.

    Args:
        network: trained or not.
        tokenizer: the one it was trained with.
        folder: is made; files of these names in it are replaced.
    """
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperFeatureExtractor

    model = network.finished()
    last = model.config.decoder_layers - 1
    model.generation_config.alignment_heads = [[last, head] for head in ALIGNMENT_HEADS]
    with tempfile.TemporaryDirectory() as made:
        source = Path(made)
        tokenizer.save(str(source / COPIED[0]))
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
        (source / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")
        model.save_pretrained(source)
        WhisperFeatureExtractor().save_pretrained(source)
        converter = TransformersConverter(str(source), copy_files=list(COPIED))
        converter.convert(str(folder), quantization=QUANTISATION, force=True)
