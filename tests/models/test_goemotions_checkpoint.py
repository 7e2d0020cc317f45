"""The packaged checkpoint answers to words as its model card says, through the real sentence encoder."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_models.checkpoint import LoadedCheckpoint, load_checkpoint, packaged_checkpoint
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.sentence import SentenceEncoder
from emi_models.errors import ModelUnavailableError
from emi_models.store import ModelStore
from emi_models.training.goemotions_data import mean_pearson, read_split, spoken
from emi_models.training.text_branch import predict, text_window
from emi_models.vocabulary import EMOTIONS

# Two of each, the second as a speech recogniser writes it; none is from the data.
SENTENCES = {
    "admiration": (
        "What an incredible performance, you are a truly brilliant pianist!",
        "she is such an amazing teacher i really look up to her",
    ),
    "amusement": (
        "Haha, that is the funniest thing I have heard all week!",
        "lol that joke made me laugh so hard",
    ),
    "determination": (
        "I am determined to succeed, and I will not stop until I do.",
        "i'm going to work hard and i know we will succeed",
    ),
    "empathic_pain": (
        "I am so sorry for your loss, my heart aches for you and your family.",
        "oh no that is so sad the poor little girl must be hurting",
    ),
    "excitement": (
        "I can't wait for the concert tonight, this is so exciting!",
        "wow oh my god it is finally happening i am so excited",
    ),
    "joy": (
        "I am so happy today, this is the best birthday ever.",
        "i'm so glad you came it makes me really happy",
    ),
}
NEUTRAL = ("The meeting is at three on Tuesday.", "turn left at the next corner and then go straight")


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    try:
        return SentenceEncoder(ModelStore(offline=True).locate("all-minilm-l6-v2"))
    except ModelUnavailableError as error:
        if os.environ.get("EMI_REQUIRE_ASSETS"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def compact() -> LoadedCheckpoint:
    return load_checkpoint(packaged_checkpoint("compact"), expect_encoders=COMPACT_ENCODERS)


def answers(compact: LoadedCheckpoint, encoder: SentenceEncoder, *texts: str) -> NDArray[np.float32]:
    return predict(compact.network, torch.from_numpy(encoder.encode(texts)))


@pytest.mark.parametrize("emotion", EMOTIONS)
@pytest.mark.parametrize("way", [0, 1], ids=["written", "spoken"])
def test_a_sentence_of_an_emotion_shows_it_most(
    compact: LoadedCheckpoint, encoder: SentenceEncoder, emotion: str, way: int
) -> None:
    texts = [pair[way] for pair in SENTENCES.values()] + [NEUTRAL[way]]
    column = answers(compact, encoder, *texts)[:, EMOTIONS.index(emotion)]
    assert column.argmax() == list(SENTENCES).index(emotion), dict(zip(texts, column, strict=True))


def test_plain_statements_show_little_of_anything(
    compact: LoadedCheckpoint, encoder: SentenceEncoder
) -> None:
    assert answers(compact, encoder, *NEUTRAL).max() < 0.2


@pytest.mark.assets
def test_the_score_of_the_model_card_holds_on_a_part_of_dev(
    compact: LoadedCheckpoint, encoder: SentenceEncoder, assets: Path
) -> None:
    dev = read_split(assets / "goemotions", "dev")
    targets = dev.targets[:1000]
    written = answers(compact, encoder, *dev.texts[:1000])
    choice = random.Random(0)  # noqa: S311  # repeatable, not secret
    heard = answers(compact, encoder, *(spoken(text, choice) for text in dev.texts[:1000]))
    # The whole of dev scores 0.52; a thousand comments hold only some twenty of the rarer emotions.
    assert mean_pearson(written, targets) >= 0.46
    assert mean_pearson(heard, targets) >= 0.46


@pytest.mark.assets
def test_without_words_the_answer_is_the_mean_of_the_data(compact: LoadedCheckpoint, assets: Path) -> None:
    means = read_split(assets / "goemotions", "train").targets.mean(axis=0)
    wordless = predict(compact.network, torch.zeros(1, 384), present=False)[0]
    assert np.abs(wordless - means).max() < 0.02


def test_face_and_voice_change_nothing_yet(compact: LoadedCheckpoint) -> None:
    text = torch.nn.functional.normalize(torch.ones(1, 384), dim=1)
    quiet = text_window(text)
    loud = type(quiet)(
        vision=torch.rand(quiet.vision.shape),
        vision_mask=torch.ones(quiet.vision_mask.shape, dtype=torch.bool),
        vision_present=torch.tensor([True]),
        audio=torch.rand(quiet.audio.shape),
        audio_mask=torch.ones(quiet.audio_mask.shape, dtype=torch.bool),
        audio_present=torch.tensor([True]),
        text=text,
        text_present=torch.tensor([True]),
    )
    assert torch.equal(compact.network(loud), compact.network(quiet))
