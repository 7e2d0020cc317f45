"""The contract of `FusionNetwork`, on every system and variant."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models import MODALITIES, Modality
from emi_models.inputs import FusionInputs
from emi_models.networks.base import FusionNetwork
from tests.models.networks.zoo import EXACT, ORDERED, SMALL, VARIANTS, network, packed, row, windows

every = pytest.mark.parametrize("name", VARIANTS)
NETWORKS = {name: network(name) for name in VARIANTS}  # for what only looks


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


@every
def test_six_finite_values_per_window(name: str) -> None:
    out = NETWORKS[name](windows(3))
    assert out.shape == (3, 6)
    assert out.isfinite().all()
    assert differ(out[0], out[1]) > 1e-4


@every
def test_a_prediction_does_not_depend_on_batch_mates(name: str) -> None:
    window = windows(5)
    alone = torch.cat([NETWORKS[name](row(window, i)) for i in range(5)])
    assert differ(NETWORKS[name](window), alone) <= EXACT


@every
@settings(max_examples=10, deadline=None)
@given(
    vision=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    audio=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 1000),
)
def test_a_prediction_does_not_depend_on_padding_before_or_behind(
    name: str, vision: tuple[int, int], audio: tuple[int, int], seed: int
) -> None:
    window = windows(2, seed=seed)
    padded = replace(
        window,
        vision=F.pad(window.vision, (0, 0, *vision), value=9.0),
        vision_mask=F.pad(window.vision_mask, vision),
        audio=F.pad(window.audio, (0, 0, *audio), value=-9.0),
        audio_mask=F.pad(window.audio_mask, audio),
    )
    assert differ(NETWORKS[name](padded), NETWORKS[name](window)) <= EXACT


@every
def test_holes_in_a_mask_are_as_if_the_frames_were_packed(name: str) -> None:
    window = windows(4)
    assert differ(NETWORKS[name](packed(window)), NETWORKS[name](window)) <= EXACT


@every
def test_windows_may_be_shorter_than_the_configuration_down_to_one_frame(name: str) -> None:
    window = packed(windows(3))
    kept = {m: getattr(window, f"{m}_mask").clone() for m in ("vision", "audio")}
    for mask in kept.values():
        mask[:, 1:] = False
    first = replace(window, vision_mask=kept["vision"], audio_mask=kept["audio"])
    short = replace(
        window,
        vision=window.vision[:, :1],
        vision_mask=window.vision_mask[:, :1],
        audio=window.audio[:, :1],
        audio_mask=window.audio_mask[:, :1],
    )
    assert differ(NETWORKS[name](short), NETWORKS[name](first)) <= EXACT


@every
def test_masked_frames_are_never_read_not_even_nan(name: str) -> None:
    window = windows(3)
    spoiled = replace(
        window,
        vision=torch.where(window.vision_mask[:, :, None], window.vision, float("nan")),
        audio=torch.where(window.audio_mask[:, :, None], window.audio, float("nan")),
    )
    assert torch.equal(NETWORKS[name](spoiled), NETWORKS[name](window))


@every
@pytest.mark.parametrize("modality", MODALITIES)
def test_an_absent_modality_is_never_read_and_a_present_one_is(name: str, modality: Modality) -> None:
    window = windows(3)
    absent = window.without(modality)
    expected = NETWORKS[name](absent)
    assert differ(expected, NETWORKS[name](window)) > 1e-5
    for value in (3e38, float("nan")):
        spoiled = replace(absent, **{modality: torch.full_like(getattr(window, modality), value)})
        assert torch.equal(NETWORKS[name](spoiled), expected)


@every
@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_present_without_a_frame_is_absent(name: str, modality: Modality) -> None:
    window = windows(2)
    no_frames = replace(window, **{f"{modality}_mask": torch.zeros_like(getattr(window, f"{modality}_mask"))})
    assert differ(NETWORKS[name](no_frames), NETWORKS[name](window.without(modality))) <= 1e-6


@every
def test_nothing_present_is_finite_and_the_same_for_all(name: str) -> None:
    nothing = NETWORKS[name](windows(2).without(*MODALITIES))
    assert nothing.isfinite().all()
    assert differ(nothing[0], nothing[1]) <= 1e-6
    assert differ(NETWORKS[name](FusionInputs.empty(SMALL)), nothing[:1]) <= 1e-6


@every
@pytest.mark.parametrize("modality", MODALITIES)
def test_an_untrained_modality_is_absent_whatever_the_window_says(name: str, modality: Modality) -> None:
    net = network(name, tuple(m for m in MODALITIES if m != modality))
    window = windows(3)
    assert torch.equal(net(window), net(window.without(modality)))


@every
def test_every_parameter_learns(name: str) -> None:
    net = network(name).train()
    g = torch.Generator().manual_seed(0)
    window = replace(windows(64), **{f"{m}_present": torch.rand(64, generator=g) < 0.5 for m in MODALITIES})
    _answers(net, window).square().sum().backward()
    idle = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-7}
    # Softmax ignores what shifts all scores alike: a bias on keys, or on the scores of attention pooling.
    assert {n for n in idle if not n.endswith(("key.bias", "score.bias"))} == set()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def _answers(net: FusionNetwork, window: FusionInputs) -> torch.Tensor:
    """What a network is trained on: its prediction and, for the dual-stage one, its alignment."""
    from emi_models.networks.dual_stage import DualStage

    if not isinstance(net, DualStage):
        return net(window)
    aligned = net.align(window)
    similar = [net.logit_scale.exp() * (x @ aligned.text.T) for x in (aligned.vision, aligned.audio)]
    return torch.cat([net(window), *similar], dim=1)


@every
def test_evaluation_is_repeatable(name: str) -> None:
    assert torch.equal(NETWORKS[name](windows(3)), NETWORKS[name](windows(3)))


@pytest.mark.slow
@every
def test_sixteen_windows_can_be_learned_by_heart(name: str) -> None:
    net = network(name, dropout=0.0, modality_dropout=0.0) if _drops(name) else network(name, dropout=0.0)
    window, targets = windows(16), torch.rand(16, 6, generator=torch.Generator().manual_seed(2))
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    learned = 0.02 * targets.var().item()
    for _ in range(250):
        loss = F.mse_loss(net(window), targets)
        if loss.item() < learned:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < learned


def _drops(name: str) -> bool:
    return hasattr(NETWORKS[name].config, "modality_dropout")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_order_of_frames_matters_to_those_that_model_time_only(name: str) -> None:
    window = packed(windows(2))
    full = replace(window, audio=windows(2).audio, audio_mask=torch.ones_like(window.audio_mask))
    shuffled = replace(full, audio=full.audio.flip(1))
    change = differ(NETWORKS[name](shuffled), NETWORKS[name](full))
    assert change > 1e-4 if name in ORDERED else change <= EXACT
