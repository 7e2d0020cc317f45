from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor

from emi_bench.speech.synthetic import VOCABULARY, Synthesizer
from tools.micro_whisper.clips import TrainingClip
from tools.micro_whisper.evaluation import load, transcribe
from tools.micro_whisper.examples import PHONEMES, Tokens, TrainingPhase, collate, make_tokenizer
from tools.micro_whisper.network import MicroWhisper, Size
from tools.micro_whisper.training import Round, TrainingPlan, export, train

if TYPE_CHECKING:
    from pathlib import Path

TINY = Size(width=32, encoder_layers=1, decoder_layers=1, heads=2, feed_forward=32)
TOKENIZER = make_tokenizer()
TOKENS = Tokens.of(TOKENIZER)


def network() -> MicroWhisper:
    torch.manual_seed(0)
    return MicroWhisper(TINY, TOKENS, len(VOCABULARY), len(PHONEMES)).eval()


@pytest.mark.slow
def test_a_short_training_learns_and_its_folder_loads_and_transcribes(tmp_path: Path) -> None:
    phases = (TrainingPhase(24, 2.0, 4, speakers=2), TrainingPhase(1, 30.0, 1, speakers=1))
    losses: list[float] = []
    rounds: list[int] = []
    trained = train(
        TrainingPlan(size=TINY, rounds=(Round(phases, peak=1e-2, warmup=4),)),
        TOKENS,
        lambda _, found: losses.append(float(found.total())),
        lambda number, _: rounds.append(number),
    )
    assert len(losses) == 25
    assert np.isfinite(losses).all()
    assert np.mean(losses[18:24]) < 0.8 * losses[0]
    assert rounds == [1]
    export(trained, TOKENIZER, tmp_path / "model")
    said = Synthesizer().say(["we", "win"])
    words = transcribe(load(tmp_path / "model"), said.samples, max_new_tokens=8)
    assert all(word.word.startswith(" ") and word.start <= word.end for word in words)


def test_the_features_are_those_that_faster_whisper_gives_its_model() -> None:
    said = Synthesizer().say(["so", "happy"])
    batch = collate(
        [TrainingClip(said.samples, (said.words,), ())],
        TOKENS,
        FeatureExtractor(),
        30.0,
        np.random.default_rng(0),
    )
    features = FeatureExtractor()(said.samples)
    theirs = pad_or_trim(features[:, : features.shape[-1] - 1])  # as its generate_segments does
    assert np.array_equal(batch.features[0].numpy(), theirs)


def test_windows_of_any_length_are_encoded_as_transformers_encodes_30_s() -> None:
    own, features = network(), torch.randn(1, 80, 3_000)
    with torch.no_grad():
        ours, _ = own.encode(features)
        theirs = own.whisper.model.encoder(features).last_hidden_state
        short, _ = own.encode(features[:, :, :400])
    torch.testing.assert_close(ours, theirs)
    assert short.shape == (1, 200, TINY.width)


def test_the_finished_model_says_what_the_trained_one_says() -> None:
    own, features, inputs = network(), torch.randn(2, 80, 3_000), torch.tensor([[TOKENS.start, 3, 7]] * 2)
    with torch.no_grad():
        expected = own(features, inputs).logits
        given = own.finished()(input_features=features, decoder_input_ids=inputs).logits
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
