"""Branches of one modality, and the network that joins them: what they show adds up, and rest is rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emi_models import EMOTIONS, Modality
from emi_models.inputs import FusionInputs
from emi_models.networks.taemi import Taemi
from recipes.compact.branches import BranchRecipe, counted
from recipes.compact.faces import FaceWindows
from recipes.compact.ferplus import VOTES, RatedFaces
from recipes.compact.hearing import DESCRIPTORS, HEADS, linear_scores, summaries, voice_network, voice_window
from recipes.compact.judges import JudgeRecipe, Judges, train_judges
from recipes.compact.prototypes import FEATURES, mirrored
from recipes.compact.readers import ReaderRecipe, Readers, train_readers
from recipes.compact.scores import auc, infer, windows_of
from recipes.compact.seeing import FACE_CONFIG, FaceMixture, face_window, train_face, what_votes_show
from recipes.compact.sentences import HELD_OUT, MADE, OWN, PLAIN, PLAIN_HELD_OUT, Sentence
from recipes.compact.sizes import SHAPES
from recipes.compact.together import join
from recipes.compact.words import (
    DENIED,
    SHOWN,
    WORDS_CONFIG,
    Own,
    WordMixture,
    predict,
    text_window,
    train_words,
    what_words_add,
)

REST = torch.tensor([0.05, 0.02, 0.03, 0.04, 0.01, 0.02])
JOY = EMOTIONS.index("joy")
ALL: tuple[Modality, ...] = ("text", "audio", "vision")


def embeddings(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 384, generator=generator), dim=1)


def words(seed: int) -> Taemi:
    torch.manual_seed(seed)
    return Taemi(WORDS_CONFIG).eval()


@pytest.fixture(scope="module")
def branches() -> tuple[list[Taemi], Taemi, Taemi]:
    torch.manual_seed(5)
    return [words(1), words(2)], Taemi(FACE_CONFIG).eval(), voice_network()


@pytest.fixture(scope="module")
def joined(branches: tuple[list[Taemi], Taemi, Taemi]) -> Taemi:
    return join(*branches, REST, embeddings(1)[0])


@pytest.fixture(scope="module")
def window() -> FusionInputs:
    """Four windows with everything."""
    rng = np.random.default_rng(0)
    face = face_window(
        rng.random((4, SHAPES.vision_frames, 58), np.float32), np.ones((4, SHAPES.vision_frames), np.bool_)
    )
    voice = voice_window(*windows_of([speech(seed) for seed in range(4)]))
    return replace(
        face,
        audio=voice.audio,
        audio_mask=voice.audio_mask,
        audio_present=voice.audio_present,
        text=embeddings(4, 3),
        text_present=torch.ones(4, dtype=torch.bool),
    )


def speech(seed: int, frames: int = 120) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Frames of prosody, at random."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.5, (frames, SHAPES.audio_dim)).astype(np.float32)
    values[:, 65] = rng.random(frames)
    return values


def test_what_modalities_show_adds_up(joined: Taemi, window: FusionInputs) -> None:
    rest = infer(joined, window.without(*ALL))
    alone = {one: infer(joined, window.without(*(m for m in ALL if m != one))) - rest for one in ALL}
    for gone in ALL:
        expected = rest + np.sum([alone[one] for one in ALL if one != gone], axis=0)
        np.testing.assert_allclose(infer(joined, window.without(gone)), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        infer(joined, window), rest + np.sum(list(alone.values()), axis=0), rtol=0, atol=1e-5
    )
    assert all(np.abs(added).max() > 1e-3 for added in alone.values())


def test_rest_is_what_it_was_asked_to_be(joined: Taemi, window: FusionInputs) -> None:
    np.testing.assert_allclose(
        infer(joined, window.without(*ALL)), REST.numpy()[None].repeat(4, 0), atol=2e-3
    )


def test_each_branch_says_what_it_said_alone(
    joined: Taemi, branches: tuple[list[Taemi], Taemi, Taemi], window: FusionInputs
) -> None:
    texts, face, voice = branches
    mean = np.mean([predict(network, window.text) for network in texts], axis=0)
    np.testing.assert_allclose(infer(joined, window.without("audio", "vision")), mean, atol=2e-3)
    rest = infer(joined, window.without(*ALL))
    seen = infer(joined, window.without("audio", "text")) - rest
    np.testing.assert_allclose(seen, infer(face, window), atol=2e-3)
    heard = infer(joined, window.without("vision", "text")) - rest
    np.testing.assert_allclose(heard, infer(voice, window), atol=2e-3)


def test_what_a_modality_adds_to_an_emotion_may_count_more(
    joined: Taemi, branches: tuple[list[Taemi], Taemi, Taemi], window: FusionInputs
) -> None:
    more = join(*branches, REST, embeddings(1)[0], {("text", "joy"): 1.5, ("vision", "joy"): 2.0})
    rest, rest_now = (infer(network, window.without(*ALL)) for network in (joined, more))
    np.testing.assert_allclose(rest_now, rest, atol=2e-3)
    for modality, times in (("text", 1.5), ("vision", 2.0), ("audio", 1.0)):
        others = [one for one in ALL if one != modality]
        before, now = (infer(network, window.without(*others)) for network in (joined, more))
        np.testing.assert_allclose((now - rest_now)[:, JOY], times * (before - rest)[:, JOY], atol=5e-3)
        same = [column for column in range(len(EMOTIONS)) if column != JOY]
        np.testing.assert_allclose(now[:, same], before[:, same], atol=5e-3)


def test_what_is_not_known_does_not_count() -> None:
    answers, unknown = torch.tensor([[0.1, 9, 9, 9, 9, 9]]), torch.tensor([[2.0, 0, 0, 0, 0, 0]])
    assert float(counted(answers, torch.zeros(1, 6), unknown)) == pytest.approx(0.01)


def rated(count: int = 400) -> RatedFaces:
    """Faces whose smile is the share of happiness; the others are neutral."""
    rng = np.random.default_rng(0)
    values = rng.random((count, 58), np.float32) * 0.2
    happy = rng.choice([0.0, 0.5, 1.0], count).astype(np.float32)
    for side in ("mouthSmileLeft", "mouthSmileRight"):
        values[:, FEATURES.index(side)] = happy
    shares = np.zeros((count, len(VOTES)), np.float32)
    shares[:, VOTES.index("happiness")], shares[:, VOTES.index("neutral")] = happy, 1 - happy
    return RatedFaces(values, shares, np.arange(count))


def test_votes_show_joy_for_happiness_and_nothing_for_neutral_and_anger() -> None:
    faces = rated(30)
    faces.shares[0] = 0
    faces.shares[0, VOTES.index("anger")] = 1
    shows = what_votes_show(faces.values, faces.shares)
    assert np.corrcoef(shows[:, JOY], faces.share("happiness"))[0, 1] > 0.95
    assert shows[0].max() == 0  # nor for its smile, which happens to be there
    assert shows[1:][faces.share("happiness")[1:] == 0].max() == 0
    # Few votes show less than their part, and a larger smile more than a small one that all call happy too.
    few, small, large = np.zeros((3, len(VOTES)), np.float32), *np.zeros((2, 1, 58), np.float32)
    few[0, [VOTES.index(name) for name in ("happiness", "sadness", "surprise")]] = 0.1
    few[1:, VOTES.index("happiness")] = 1
    for column in ("mouthSmileLeft", "mouthSmileRight"):
        small[0, FEATURES.index(column)], large[0, FEATURES.index(column)] = 0.4, 0.9
    little, less, more = what_votes_show(np.concatenate([np.zeros_like(small), small, large]), few)
    assert little.max() < 0.02
    assert more[JOY] > less[JOY] > 0.3


def test_a_mirrored_face_is_the_same_face_turned() -> None:
    face = np.arange(58, dtype=np.float32)
    turned = mirrored(face)
    assert turned[FEATURES.index("mouthSmileLeft")] == face[FEATURES.index("mouthSmileRight")]
    assert turned[FEATURES.index("yaw")] == -face[FEATURES.index("yaw")]
    assert turned[FEATURES.index("jawOpen")] == face[FEATURES.index("jawOpen")]
    assert np.array_equal(mirrored(turned), face)


@pytest.fixture(scope="module")
def judges() -> Judges:
    recipe = JudgeRecipe(judges=2, steps=150, batch=64, hidden=32, dropout=0.0, learning_rate=0.02)
    return train_judges(rated(), recipe, lambda *_: None)


def test_judges_vote_as_raters_do(judges: Judges) -> None:
    other = rated(100)
    shares = judges(other.values)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert np.corrcoef(shares[:, VOTES.index("happiness")], other.share("happiness"))[0, 1] > 0.95
    moved = other.values.copy()
    moved[:, FEATURES.index("x") :] += 1
    assert np.array_equal(judges(moved), shares)


def test_the_face_branch_learns_what_judges_say(judges: Judges) -> None:
    prototypes = FaceWindows(
        np.zeros((8, SHAPES.vision_frames, 58), np.float32),
        np.ones((8, SHAPES.vision_frames), np.bool_),
        np.zeros((8, 6), np.float32),
    )
    mixture = FaceMixture(rated(), judges, prototypes)
    recipe = BranchRecipe(steps=120, warm_up=5, batch=64, average=0.9)
    network = train_face(mixture, recipe, lambda *_: None)
    other = rated(100)
    answers = infer(network, face_window(other.values[:, None], np.ones((100, 1), np.bool_)))
    assert np.corrcoef(answers[:, JOY], other.share("happiness"))[0, 1] > 0.9
    again = train_face(mixture, recipe, lambda *_: None)
    pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def comments(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings, and whether each is one of joy."""
    text = embeddings(count, seed)
    joyful = text[:, 0] > 0
    text[:, 0] += torch.where(joyful, 0.5, -0.5)
    return torch.nn.functional.normalize(text, dim=1), joyful


@pytest.fixture(scope="module")
def readers() -> Readers:
    text, joyful = comments(400, 9)
    targets = torch.zeros(400, 6)
    targets[:, JOY] = joyful.float()
    labels = torch.stack([joyful, ~joyful], dim=1).float()
    recipe = ReaderRecipe(
        readers=2, epochs=12, batch=32, hidden=32, dropout=0.0, average=0.9, held_out=40, learning_rate=0.02
    )
    return train_readers([text], targets, labels, recipe, lambda *_: None)


def test_readers_foretell_what_people_say(readers: Readers) -> None:
    text, joyful = comments(100, 10)
    said = readers(text)
    assert said.shape == (100, 6)
    assert float(said.min()) >= 0
    assert float(said[joyful, JOY].mean()) > 0.8
    assert float(said[~joyful, JOY].mean()) < 0.2
    assert float(said[:, :JOY].max()) < 0.2  # which nobody said of any comment


def test_plain_words_add_nothing_and_clear_ones_no_more_than_all() -> None:
    adds = what_words_add(torch.tensor([[0.0] * 6, [0.01] * 6, [0.5] * 6, [1.0] * 6]))
    assert float(adds[:2].max()) == 0
    assert bool((adds[2] > 0.3).all())
    assert float(adds.max()) == 1


def test_a_sentence_of_ours_says_more_than_readers_do(readers: Readers) -> None:
    said = [Sentence("a", "joy", True), Sentence("b", "joy", False), Sentence("c", "", False)]
    text, _ = comments(60, 11)
    order = readers(text)[:, JOY].argsort()
    text = text[order[[0, -1, -2]]]
    adds = Own.of(text, said).adds(readers)
    assert adds[:, JOY].tolist() == [pytest.approx(SHOWN), pytest.approx(DENIED), 0]
    assert float(adds[2].abs().max()) == 0
    assert torch.equal(adds[0, :JOY], what_words_add(readers(text[:1]))[0, :JOY])


def test_words_learn_what_readers_say_and_what_is_known_of_sentences(readers: Readers) -> None:
    text, joyful = comments(400, 12)
    own = Own.of(-text[~joyful][:1], [Sentence("a", "joy", False)])
    mixture = WordMixture([text], readers, [own], REST)
    recipe = BranchRecipe(steps=150, warm_up=5, batch=64, average=0.9, first_layer_rate=1e-2)
    network = train_words(mixture, recipe, lambda *_: None)
    other, joyful = comments(100, 13)
    adds = torch.from_numpy(predict(network, other)) - REST
    assert float(adds[joyful, JOY].mean()) > 0.5
    assert float(adds[~joyful].abs().mean()) < 0.05
    assert float(what_words_add(readers(own.text))[0, JOY]) > 0.5
    assert predict(network, own.text)[0, JOY] - float(REST[JOY]) < 0.1
    again = train_words(mixture, recipe, lambda *_: None)
    pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_voice_s_attention_gives_the_summaries_that_are_written_down() -> None:
    network = voice_network()
    frames = speech(7)
    window = voice_window(*windows_of([frames]))
    read: list[torch.Tensor] = []
    hook = network.head[0].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    infer(network, window)
    hook.remove()
    heads = read[0][0, SHAPES.text_dim : SHAPES.text_dim + 64].reshape(len(HEADS), 16)[:, : len(DESCRIPTORS)]
    np.testing.assert_allclose(heads.numpy(), summaries(frames), rtol=0, atol=2e-4)


def test_the_gain_of_a_microphone_changes_nothing() -> None:
    frames = speech(3)
    louder = frames.copy()
    louder[:, :64] += 0.4
    louder[:, 66] += 0.6
    window = voice_window(*windows_of([frames, louder]))
    soft, loud = infer(voice_network(), window)
    np.testing.assert_allclose(soft, loud, rtol=0, atol=1e-4)
    both = linear_scores(np.stack([summaries(frames), summaries(louder)]))
    np.testing.assert_allclose(both[0], both[1], rtol=0, atol=1e-4)


def test_sentences_to_score_are_not_trained_on() -> None:
    assert len(HELD_OUT) == 100
    assert not {sentence.text for sentence in (*OWN, *MADE)} & {sentence.text for sentence in HELD_OUT}
    assert not {sentence.text for sentence in PLAIN} & {sentence.text for sentence in PLAIN_HELD_OUT}
    assert all(len({sentence.emotion for sentence in said}) == 1 for said in (PLAIN, PLAIN_HELD_OUT))
    assert {sentence.emotion for sentence in HELD_OUT} == set(EMOTIONS)


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(0.875)
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


def test_windows_of_words_have_only_words() -> None:
    window = text_window(embeddings(2))
    assert bool(window.text_present.all())
    assert not bool(window.vision_present.any() or window.audio_present.any())
