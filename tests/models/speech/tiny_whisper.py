"""A tiny Whisper in CTranslate2's format that says what it is told, so that the real path runs."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
TIMESTAMPS = 1501  # 0.00 to 30.00 s

WIDTH = 64


def make_tiny_whisper(folder: Path, says: str, until_s: float) -> Path:
    """A model in `folder` that hears `says` (lower-case words) in any sound, from 0 to `until_s`."""
    import torch
    from ctranslate2.converters import TransformersConverter
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    source = folder / "transformers"
    source.mkdir(parents=True)
    words = sorted(pre_tokenizers.ByteLevel.alphabet()) + [f"Ġ{letter}" for letter in string.ascii_lowercase]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: index for index, word in enumerate(words)},
            merges=[("Ġ", letter) for letter in string.ascii_lowercase],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    stamps = [f"<|{index * 0.02:.2f}|>" for index in range(TIMESTAMPS)]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in stamps])
    tokenizer.save(str(source / "tokenizer.json"))
    ids: dict[str, Any] = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    end: int = ids["<|endoftext|>"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[0],
    }
    (source / "tokenizer_config.json").write_text(json.dumps(settings))

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        suppress_tokens=[],
        begin_suppress_tokens=[end],
    )
    model = WhisperForConditionalGeneration(config)
    script = tokenizer.encode(f"<|0.00|> {says}<|{until_s:.2f}|><|endoftext|>").ids
    _make_it_say(model, script, end)
    model.generation_config.alignment_heads = [[0, 0], [0, 1]]
    model.save_pretrained(source)
    WhisperFeatureExtractor().save_pretrained(source)
    copied = ["tokenizer.json", "preprocessor_config.json"]
    target = folder / "tiny-whisper"
    TransformersConverter(str(source), copy_files=copied).convert(str(target), quantization="int8")
    return target


def _make_it_say(model: Any, script: list[int], end: int) -> None:
    """Let each position of the decoder alone decide on the next token; attention adds nothing."""
    import torch

    decoder = model.model.decoder
    with torch.no_grad():
        for layer in decoder.layers:
            for silenced in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                silenced.weight.zero_()
                silenced.bias.zero_()
        tokens = torch.nn.functional.normalize(torch.randn(model.config.vocab_size, WIDTH), dim=1)
        decoder.embed_tokens.weight.copy_(tokens)
        wanted = script + [end] * (model.config.max_target_positions - len(script))
        decoder.embed_positions.weight.copy_(30.0 * tokens[wanted])  # 30: far above the token's own part
        decoder.layer_norm.weight.fill_(4.0)  # sharp enough for probabilities near 1
