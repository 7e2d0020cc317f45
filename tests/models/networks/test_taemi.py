"""TAEMI: shapes of the paper, masks, missing tokens, independence of batch mates and of padding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES, FusionInputs, FusionShapes
from emi_models.networks.taemi import Taemi, TaemiConfig
from emi_models.vocabulary import MODALITIES, Modality

SMALL = FusionShapes(vision_frames=6, vision_dim=5, audio_frames=9, audio_dim=7, text_dim=8)
EXACT = 1e-5  # what DESIGN asks of independence from batch mates


def network(modalities: tuple[Modality, ...] = MODALITIES, shapes: FusionShapes = SMALL) -> Taemi:
    torch.manual_seed(0)
    return Taemi(TaemiConfig(shapes=shapes, modalities=modalities, d_model=16, heads=4, mlp_hidden=16)).eval()


def windows(batch: int, shapes: FusionShapes = SMALL, seed: int = 1) -> FusionInputs:
    g = torch.Generator().manual_seed(seed)
    yes = torch.ones(batch, dtype=torch.bool)
    return FusionInputs(
        vision=torch.randn(batch, shapes.vision_frames, shapes.vision_dim, generator=g),
        vision_mask=torch.rand(batch, shapes.vision_frames, generator=g) < 0.7,
        vision_present=yes,
        audio=torch.randn(batch, shapes.audio_frames, shapes.audio_dim, generator=g),
        audio_mask=torch.rand(batch, shapes.audio_frames, generator=g) < 0.7,
        audio_present=yes,
        text=torch.randn(batch, shapes.text_dim, generator=g),
        text_present=yes,
    )


def row(window: FusionInputs, index: int) -> FusionInputs:
    return FusionInputs(*(t[index : index + 1] for t in window.tensors()))


def test_the_papers_sizes() -> None:
    net = Taemi(TaemiConfig(shapes=TAEMI_SHAPES))
    assert net.head[0].in_features == 1792
    assert net.head[0].out_features == 512
    assert net.head[3].out_features == 6
    assert net.audio.token.shape == (1027,)
    assert net.vision.token.shape == net.text.token.shape == (768,)
    assert 0.015 < net.audio.token.std().item() < 0.025
    assert len(net.head) == 4, "no sigmoid: Linear, GELU, Dropout, Linear"


def test_output_is_six_raw_values_per_window() -> None:
    out = network(shapes=COMPACT_SHAPES)(windows(3, COMPACT_SHAPES))
    assert out.shape == (3, 6)
    assert out.isfinite().all()


def test_a_prediction_does_not_depend_on_batch_mates() -> None:
    net, window = network(), windows(5)
    together = net(window)
    alone = torch.cat([net(row(window, i)) for i in range(5)])
    assert (together - alone).abs().max() <= EXACT


@settings(max_examples=25, deadline=None)
@given(pad_vision=st.integers(0, 20), pad_audio=st.integers(0, 20), seed=st.integers(0, 1000))
def test_a_prediction_does_not_depend_on_padding(pad_vision: int, pad_audio: int, seed: int) -> None:
    net, window = network(), windows(2, seed=seed)
    pad = torch.nn.functional.pad
    padded = replace(
        window,
        vision=pad(window.vision, (0, 0, 0, pad_vision), value=9.0),
        vision_mask=pad(window.vision_mask, (0, pad_vision)),
        audio=pad(window.audio, (0, 0, 0, pad_audio), value=-9.0),
        audio_mask=pad(window.audio_mask, (0, pad_audio)),
    )
    assert (net(padded) - net(window)).abs().max() <= EXACT


def test_masked_frames_are_never_read_not_even_nan() -> None:
    net, window = network(), windows(3)
    vision = torch.where(window.vision_mask[:, :, None], window.vision, float("nan"))
    spoiled = replace(window, vision=vision)
    assert torch.equal(net(spoiled), net(window))


def test_the_order_of_frames_does_not_matter() -> None:
    net, window = network(), windows(2)
    order = torch.randperm(SMALL.audio_frames)
    shuffled = replace(window, audio=window.audio[:, order], audio_mask=window.audio_mask[:, order])
    assert (net(shuffled) - net(window)).abs().max() <= EXACT


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_missing_modality_is_its_token(modality: Modality) -> None:
    net, window = network(), windows(2)
    token = getattr(net, modality).token.detach()
    if modality == "text":
        explicit = replace(window, text=token.expand(2, -1))
    else:
        frames = getattr(window, modality).clone()
        frames[:, 0] = token
        mask = torch.zeros_like(getattr(window, f"{modality}_mask"))
        mask[:, 0] = True
        explicit = replace(window, **{modality: frames, f"{modality}_mask": mask})
    missing = net(window.without(modality))
    assert (missing - net(explicit)).abs().max() <= EXACT
    assert (missing - net(window)).abs().max() > 1e-4, "the modality made no difference"


def test_present_without_a_frame_is_missing_and_nothing_present_is_finite() -> None:
    net, window = network(), windows(2)
    no_frames = replace(window, vision_mask=torch.zeros_like(window.vision_mask))
    assert torch.equal(net(no_frames), net(window.without("vision")))
    nothing = net(window.without(*MODALITIES))
    assert nothing.isfinite().all()
    assert torch.equal(nothing[0], nothing[1])


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_untrained_modality_is_its_token_whatever_the_window_says(modality: Modality) -> None:
    trained = tuple(m for m in MODALITIES if m != modality)
    net, window = network(trained), windows(3)
    assert torch.equal(net(window), net(window.without(modality)))
    whole = network()  # the same weights, trained on all: the short cut must equal the long way
    whole.load_state_dict(net.state_dict())
    assert (net(window) - whole(window.without(modality))).abs().max() <= EXACT


def test_training_drops_modalities_at_the_given_rate_and_evaluation_never() -> None:
    net = Taemi(TaemiConfig(shapes=SMALL, d_model=16, mlp_hidden=16))
    present = torch.ones(20_000, dtype=torch.bool)
    torch.manual_seed(0)
    net.train()
    share = net.text.usable(present).float().mean().item()
    assert 0.89 < share < 0.91
    assert not net.text.usable(~present).any()
    net.eval()
    assert net.text.usable(present).all()


def test_every_parameter_learns() -> None:
    net = network().train()
    half = torch.tensor([True, False] * 32)  # so that both tokens and features are used
    window = replace(windows(64), vision_present=half, audio_present=~half, text_present=half)
    net(window).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias on keys shifts all scores of a query alike, which softmax ignores.
    assert [name for name in idle if not name.endswith("key.bias")] == []
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "setting",
    [{"heads": 3}, {"d_model": 0}, {"dropout": 1.0}, {"modality_dropout": -0.1}, {"modalities": ()}],
)
def test_impossible_configurations_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        TaemiConfig(**{"shapes": SMALL, "d_model": 16, **setting})  # type: ignore[arg-type]  # on purpose
