"""Names and ranges of what a network estimates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_models import EMOTIONS
from emi_models.checkpoint import read_header, save_checkpoint
from emi_models.errors import CheckpointError, DataError
from emi_models.targets import EMI_TARGETS, Target, parse_target_list, ranges_of, shown_values
from emi_models.training.evaluate import Scores
from emi_models.training.recipe import concordance_loss, cross_entropy, squared_error
from tests.models.networks.zoo import network, save


def test_targets_are_named_with_their_ranges() -> None:
    found = parse_target_list("arousal:-1..1, valence:0..100,joy")
    assert found == (Target("arousal", -1, 1), Target("valence", 0, 100), Target("joy"))
    assert ranges_of(found) == {"arousal": (-1.0, 1.0), "valence": (0.0, 100.0)}
    assert found[0].share(-0.5) == 0.25
    assert found[0].value(0.25) == -0.5


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "''"),
        ("arousal,arousal", "twice"),
        ("arousal:1", "-1..1"),
        ("arousal:1..-1", "lower"),
        ("arousal:a..b", "lower"),
        ("arousal:0..inf", "lower"),
        ("5th", "5th"),
        ("split", "split"),
        (",".join(f"t{number}" for number in range(33)), "33"),
    ],
)
def test_targets_that_cannot_be_are_refused(text: str, word: str) -> None:
    with pytest.raises(DataError, match=word):
        parse_target_list(text)


def test_what_is_shown_is_in_the_targets_units_and_within_them() -> None:
    raw = np.array([[-1.0, 0.25], [2.0, 0.5]], np.float32)
    shown = shown_values(raw, (Target("a", -1, 1), Target("b", 0.1, 0.3)))
    assert shown.tolist() == pytest.approx(np.array([[-1, 0.15], [1, 0.2]]))
    assert np.array_equal(shown_values(raw, EMI_TARGETS[:2]), np.clip(raw, 0, 1))
    assert shown_values(np.array([[0.0]]), (Target("ambivalence"),), "bah").tolist() == [[0.5]]


def test_a_checkpoint_keeps_names_and_ranges(tmp_path: Path) -> None:
    path = tmp_path / "two.safetensors"
    net = network("two_stage", targets=2)
    header = read_header(save(path, net, "two_stage"))
    named = replace(header, emotions=("arousal", "joy"), ranges={"arousal": (-1.0, 1.0)})
    save_checkpoint(path, net, named)
    assert read_header(path).targets == (Target("arousal", -1, 1), Target("joy"))
    for wrong in (
        {"emotions": EMOTIONS},
        {"emotions": ("a", "a")},
        {"ranges": {"gone": (0.0, 2.0)}},
        {"ranges": {"arousal": (2.0, 0.0)}},
    ):
        with pytest.raises(CheckpointError):
            save_checkpoint(path, net, replace(named, **wrong))


def test_a_checkpoint_of_the_six_is_written_as_before(tmp_path: Path) -> None:
    header = read_header(save(tmp_path / "six.safetensors", network("taemi"), "taemi"))
    assert "targets" not in header.config
    assert b"ranges" not in (tmp_path / "six.safetensors").read_bytes()
    assert header.targets == EMI_TARGETS


def test_a_rating_that_is_not_there_has_no_part_in_a_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, targets = torch.rand(2, 12, 3, generator=generator)
    whole = targets.clone()
    targets[:4, 0] = targets[:, 2] = torch.nan
    predicted.requires_grad_()
    rated = targets.isfinite()
    expected = ((predicted - whole) ** 2)[rated].mean()
    assert squared_error(predicted, targets).item() == pytest.approx(expected.item())
    one, two = (
        concordance_loss(predicted[4:, :1], whole[4:, :1]),
        concordance_loss(predicted[:, 1:2], whole[:, 1:2]),
    )
    assert concordance_loss(predicted, targets).item() == pytest.approx(((one + two) / 2).item())
    for loss in (squared_error, concordance_loss, cross_entropy):
        (gradient,) = torch.autograd.grad(loss(predicted, targets), predicted)
        assert bool(gradient.isfinite().all())
        assert bool((gradient[~rated] == 0).all())
        assert bool((gradient[rated] != 0).any())
    nothing = torch.full((4, 3), torch.nan)
    assert (
        squared_error(predicted[:4], nothing).item() == concordance_loss(predicted[:4], nothing).item() == 0
    )


def test_scores_are_over_the_clips_that_are_rated_for_each_target() -> None:
    generator = torch.Generator().manual_seed(1)
    predicted, truth = torch.rand(2, 20, 2, generator=generator)
    targets = (Target("a", 0, 10), Target("b"))
    alone = Scores.of(predicted[:8, :1], truth[:8, :1], targets=targets[:1])
    truth[8:, 0] = torch.nan
    found = Scores.of(predicted, truth, targets=targets)
    assert found.rated == (8, 20)
    for name in ("pearson", "ccc", "mse"):
        assert getattr(found, name)[0] == pytest.approx(getattr(alone, name)[0])
    assert alone.mse[0] == pytest.approx(
        100 * ((predicted[:8, 0] - truth[:8, 0]) ** 2).mean().item(), rel=1e-5
    )
    assert found.to_json()["rated"] == {"a": 8, "b": 20}
