"""Semantic Matters: published widths, last present state, subsets, multi-task variant, the other task."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from emi_models import MODALITIES, Modality
from emi_models.inputs import TAEMI_SHAPES, FusionShapes
from emi_models.networks.semantic_matters import SemanticMatters, SemanticMattersConfig
from tests.models.networks.zoo import SMALL, windows

PAPER = FusionShapes(vision_frames=400, vision_dim=1280, audio_frames=599, audio_dim=1027, text_dim=768)


def network(modalities: tuple[Modality, ...] = MODALITIES, **settings: object) -> SemanticMatters:
    torch.manual_seed(0)
    return SemanticMatters(SemanticMattersConfig(shapes=SMALL, modalities=modalities, **settings)).eval()  # type: ignore[arg-type]  # settings of many types


@pytest.mark.parametrize(
    ("modalities", "shapes", "width"),
    [
        (MODALITIES, PAPER, 2563),
        (("text", "vision"), PAPER, 1536),
        (("text",), PAPER, 768),
        (MODALITIES, TAEMI_SHAPES, 2563),
        (MODALITIES, SMALL, 6 + 7 + 8),
    ],
)
def test_the_papers_widths(modalities: tuple[Modality, ...], shapes: FusionShapes, width: int) -> None:
    with torch.device("meta"):
        net = SemanticMatters(SemanticMattersConfig(shapes=shapes, modalities=modalities))
    first, _, last = net.head
    assert isinstance(first, nn.Linear)
    assert (first.in_features, first.out_features) == (width, 1027)
    assert last.out_features == 6
    assert set(net.lstms) == set(modalities) - {"text"}
    for name, lstm in net.lstms.items():
        assert isinstance(lstm, nn.LSTM)
        assert (lstm.num_layers, lstm.bidirectional) == (2, False)
        assert lstm.input_size == getattr(shapes, f"{name}_dim")


@pytest.mark.parametrize("fusion", ["joint", "multitask"])
def test_text_and_vision_without_an_audio_folder_have_the_published_hidden_layer(fusion: str) -> None:
    """A modality without features has width 1, and the hidden layer took its width from audio."""
    shapes = replace(SMALL, audio_dim=1)
    torch.manual_seed(0)
    net = SemanticMatters(
        SemanticMattersConfig(shapes=shapes, modalities=("vision", "text"), fusion=fusion)  # type: ignore[arg-type]  # one of two
    ).eval()
    predicted = net(windows(64, shapes)).detach()
    assert torch.linalg.matrix_rank(predicted - predicted.mean(dim=0), rtol=1e-5) == 6


def test_a_hidden_layer_narrower_than_the_six_values_is_refused() -> None:
    narrow = replace(SMALL, audio_dim=1)
    with pytest.raises(ValueError, match="fusion_hidden"):
        SemanticMattersConfig(shapes=narrow, modalities=("text",), fusion_hidden=0)
    assert (
        SemanticMattersConfig(shapes=SMALL, fusion_hidden=0).middle == SMALL.audio_dim
    )  # earlier checkpoints


def test_a_sequence_is_its_lstms_state_at_the_last_present_frame() -> None:
    net = network(("audio",))
    seen: list[torch.Tensor] = []
    net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    window = windows(4)
    net(window)
    for i in range(4):
        _, (states, _) = net.lstms["audio"](window.audio[i, window.audio_mask[i]][None])
        assert torch.allclose(seen[0][i], states[-1, 0], atol=1e-6)


@pytest.mark.parametrize("fusion", ["joint", "multitask"])
@pytest.mark.parametrize("gone", MODALITIES)
def test_a_modality_outside_the_network_has_no_parameters(gone: Modality, fusion: str) -> None:
    kept = tuple(m for m in MODALITIES if m != gone)
    net = network(kept, fusion=fusion)
    assert net.modalities == kept
    assert net.presence(windows(2)).shape == (2, 2)
    assert not [name for name, _ in net.named_parameters() if gone in name]


def test_an_absent_modality_is_zeros_at_the_fusion() -> None:
    net = network()
    seen: list[torch.Tensor] = []
    net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for i, modality in enumerate(MODALITIES):
        net(windows(2).without(modality))
        parts = seen[-1].split([6, 7, 8], dim=1)
        assert [bool(part.any()) for part in parts] == [j != i for j in range(3)]


def test_the_multitask_prediction_is_a_convex_sum_by_certainty() -> None:
    net, window = network(fusion="multitask"), windows(3)
    assert net.each(window).shape == (3, 3, 6)
    assert torch.allclose(net.weights(window), torch.full((3, 3), 1 / 3))
    assert torch.allclose(net(window), net.each(window).mean(dim=1), atol=1e-6)
    with torch.no_grad():
        net.log_variance.copy_(torch.tensor([2.0, 1.0, 0.0]))
    assert net.weights(window)[0].tolist() == pytest.approx([0.0900, 0.2447, 0.6652], abs=1e-4)
    expected = (net.weights(window)[:, :, None] * net.each(window)).sum(dim=1)
    assert torch.allclose(net(window), expected, atol=1e-6)


def test_the_multitask_variant_leaves_out_what_is_absent() -> None:
    net, window = network(fusion="multitask"), windows(2)
    missing = replace(window, audio_present=torch.tensor([True, False]))
    assert net.presence(missing).tolist() == [[True, True, True], [True, False, True]]
    assert net.weights(missing)[1].tolist() == pytest.approx([0.5, 0.0, 0.5])
    assert torch.allclose(net(missing)[1], net.each(missing)[1, [0, 2]].mean(dim=0), atol=1e-6)
    assert net(window.without("vision", "audio")).allclose(net.each(window)[:, 2], atol=1e-6)


def test_the_other_task_has_one_logit() -> None:
    for fusion in ("joint", "multitask"):
        net = network(task="bah", fusion=fusion)
        assert net.config.outputs == 1
        assert net(windows(3)).shape == (3, 1)
    assert network().config.outputs == 6


@pytest.mark.parametrize(
    "setting",
    [{"task": "wer"}, {"fusion": "late"}, {"audio_hidden": -1}, {"vision_hidden": 1e3}, {"dropout": 1.0}],
)
def test_impossible_configurations_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        SemanticMattersConfig(**{"shapes": SMALL, **setting})  # type: ignore[arg-type]  # on purpose
