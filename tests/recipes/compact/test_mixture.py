"""How windows of three modalities are drawn, what they show together, and that a network learns it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emi_models.networks.taemi import Taemi
from recipes.compact.faces import FaceWindows, make_faces
from recipes.compact.scores import dev_scores, infer, prototype_scores, with_voice
from recipes.compact.sizes import SHAPES, SPANS_S
from recipes.compact.together import Mixture, TogetherRecipe, composed, train_together
from recipes.compact.voices import VoiceTakes
from recipes.compact.words import WORDS_CONFIG, text_window

SIX = st.lists(st.floats(0, 1), min_size=6, max_size=6).map(lambda row: torch.tensor([row]))
NOTHING = torch.zeros(1, 6)


@given(SIX, SIX, SIX)
def test_together_is_at_least_each_and_at_most_one(
    words: torch.Tensor, face: torch.Tensor, voice: torch.Tensor
) -> None:
    both = composed(words, face, voice)
    assert bool((both >= torch.maximum(words, torch.maximum(face, voice)) - 1e-6).all())
    assert bool((both <= 1 + 1e-6).all())
    assert torch.allclose(composed(words, NOTHING, NOTHING), words, atol=1e-6)
    assert torch.allclose(composed(voice, words, face), both, atol=1e-6)


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    """Faces and voices that show all of an emotion or nothing, so that targets tell what was drawn."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(40, 384, generator=generator), dim=1)
    faces = FaceWindows(
        values=np.random.default_rng(0).random((10, SHAPES.vision_frames, 58), dtype=np.float32),
        mask=np.ones((10, SHAPES.vision_frames), np.bool_),
        shows=np.tile(np.array([0, 0, 0, 0, 0, 0.5], np.float32), (10, 1)),
    )
    sounds = np.zeros((8, 300, 6), np.float32)
    sounds[:, :, 1] = 0.25
    voices = VoiceTakes(np.random.default_rng(1).normal(size=(8, 300, 68)).astype(np.float16), sounds)
    return Mixture(
        words=[texts, texts.flip(0)],
        words_show=[torch.full((40, 6), 0.1), torch.full((40, 6), 0.2)],
        wordless=torch.full((6,), 0.05),
        faces=faces,
        voices=voices,
        voice_frames=SHAPES.audio_frames,
        sample=48,
    )


def test_targets_say_what_is_present(mixture: Mixture) -> None:
    window, shows, adds = mixture.draw(400, np.random.default_rng(0))
    told, seen, heard = window.text_present, window.vision_present, window.audio_present
    words = shows[:, 0]  # neither face nor voice speaks of admiration
    assert torch.allclose(words[~told], torch.tensor(0.05))
    assert {round(value, 3) for value in words[told].tolist()} == {0.1, 0.2}
    assert torch.allclose(shows[:, 5], 1 - (1 - words) * (1 - 0.5 * seen))
    sounding = window.audio_mask.sum(dim=1) > 40  # nearly a whole window: the others have hardly begun
    assert torch.allclose(shows[:, 1][sounding], 1 - (1 - words[sounding]) * (1 - 0.25 * heard[sounding]))
    patterns = {(bool(a), bool(b), bool(c)) for a, b, c in zip(told, seen, heard, strict=True)}
    assert len(patterns) == 8
    assert torch.equal(adds, told & (seen | heard))  # here every face and every voice shows something


def test_a_draw_is_repeatable_and_fits_the_network(mixture: Mixture) -> None:
    one, other = (mixture.draw(6, np.random.default_rng(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one[0].tensors(), other[0].tensors(), strict=True))
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[2], other[2])
    assert one[0].audio.shape == (6, 48, 68)
    assert one[0].vision.shape == (6, SHAPES.vision_frames, 58)
    assert bool(one[0].audio_mask.any(dim=1).all())
    words = Taemi(WORDS_CONFIG).eval()
    assert infer(words, one[0]).shape == (6, 6)


@pytest.mark.slow
def test_training_lowers_the_error_and_leaves_the_words_network_alone(mixture: Mixture) -> None:
    torch.manual_seed(0)
    words = Taemi(WORDS_CONFIG).eval()
    before = {name: tensor.clone() for name, tensor in words.state_dict().items()}
    errors: list[float] = []
    recipe = TogetherRecipe(steps=40, warm_up=5, batch=32, report_every=10)
    network = train_together(words, mixture, recipe, lambda _, error: errors.append(error))
    assert len(errors) == 4
    assert errors[-1] < 0.5 * errors[0]
    assert not network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in words.state_dict().items())
    again = train_together(words, mixture, recipe, lambda *_: None)
    pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_the_less_additions_to_words_count_the_less_a_doubtful_voice_adds(mixture: Mixture) -> None:
    """Voices that sound the same, half of which show something."""
    alike = np.broadcast_to(np.float16(1.0), mixture.voices.values.shape)
    sounds = np.concatenate([mixture.voices.sounds[:4], np.zeros((4, 300, 6), np.float32)])
    neutral = replace(mixture.faces, shows=np.zeros_like(mixture.faces.shows))
    doubtful = replace(mixture, faces=neutral, voices=VoiceTakes(alike, sounds), sample=4)
    words = text_window(mixture.words[0])
    heard = with_voice(words, alike[:1, :4].repeat(40, axis=0))
    rises = []
    for weight in (1.0, 0.1):
        torch.manual_seed(0)
        recipe = TogetherRecipe(steps=60, warm_up=5, batch=48, average=0.9, adds_weight=weight)
        network = train_together(Taemi(WORDS_CONFIG).eval(), doubtful, recipe, lambda *_: None)
        rises.append((infer(network, heard) - infer(network, words))[:, 1].mean())
    assert 0.02 < rises[0] < 0.08  # a fifth of the voices are of those that show 0.25
    assert rises[1] < 0.75 * rises[0]  # some of it is learned where there are no words


def test_scores_are_named_by_what_was_scored(mixture: Mixture) -> None:
    network = Taemi(WORDS_CONFIG).eval()
    faces = make_faces(30, SHAPES.vision_frames, SPANS_S["vision"], 0, lambda _: None)
    voices = VoiceTakes(
        mixture.voices.values, np.concatenate([mixture.voices.sounds[:4], np.zeros((4, 300, 6))])
    )
    targets = np.random.default_rng(0).random((40, 6), dtype=np.float32)
    scores = dev_scores(network, {"written": mixture.words[0]}, targets, faces, voices)
    assert len(scores) == 14
    # This network has words only: what is next to them changes nothing.
    assert scores["dev_written_pearson_mean"] == scores["dev_written_beside_neutral_pearson_mean"]
    scores = prototype_scores(network, faces, voices)
    assert "faces_pearson_joy" in scores
    assert {name for name in scores if name.startswith("voices")} == {
        "voices_pearson_mean",
        "voices_pearson_amusement",
    }
