"""The dual-stage network: alignment, quality weights, and its temporal models against PyTorch's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emi_models import MODALITIES, Modality
from emi_models.networks.base import Convolutions, GatedBiLstm
from emi_models.networks.dual_stage import DualStage, DualStageConfig
from tests.models.networks.zoo import EXACT, SMALL, row, windows


def network(modalities: tuple[Modality, ...] = MODALITIES, **settings: object) -> DualStage:
    torch.manual_seed(0)
    chosen = {"shared": 12, "d_model": 16, "segments": 4, "tcn_layers": 2, **settings}
    return DualStage(DualStageConfig(shapes=SMALL, modalities=modalities, **chosen)).eval()  # type: ignore[arg-type]  # settings of many types


def test_alignment_gives_unit_vectors_and_true_pairs() -> None:
    net = network()
    window = replace(
        windows(3),
        vision_present=torch.tensor([True, False, True]),
        text_present=torch.tensor([True, True, False]),
    )
    window.audio_mask[1] = False
    aligned = net.align(window)
    for x in (aligned.vision, aligned.audio, aligned.text):
        assert x.shape == (3, 12)
        assert x.norm(dim=1).tolist() == pytest.approx([1.0] * 3)
    assert aligned.vision_pairs.tolist() == [True, False, False]
    assert aligned.audio_pairs.tolist() == [True, False, False]
    assert net.logit_scale.exp().item() == pytest.approx(1 / 0.07)


def test_alignment_is_of_a_row_alone() -> None:
    net, window = network(), windows(3)
    together = net.align(window)
    alone = [net.align(row(window, i)) for i in range(3)]
    for name in MODALITIES:
        assert (getattr(together, name) - torch.cat([getattr(a, name) for a in alone])).abs().max() <= EXACT


def test_a_modality_outside_the_network_has_no_parameters_and_no_pairs() -> None:
    net, window = network(("audio", "text")), windows(2)
    assert not [name for name, _ in net.named_parameters() if "vision" in name or "tcn" in name]
    aligned = net.align(window)
    assert not aligned.vision.any()
    assert aligned.vision_pairs.tolist() == [False, False]
    assert aligned.audio_pairs.tolist() == [True, True]


def test_stage_one_trains_the_projections_and_stage_two_the_rest() -> None:
    net = network()
    first, second = (
        {id(p) for p in parameters} for parameters in (net.alignment_parameters(), net.fusion_parameters())
    )
    assert not first & second
    assert first | second == {id(p) for p in net.parameters()}
    names = {name.split(".")[0] for name, p in net.named_parameters() if id(p) in first}
    assert names == {"project", "logit_scale"}


def test_weights_are_shares_of_what_is_present() -> None:
    net = network()
    window = replace(windows(4), **{f"{m}_present": torch.arange(4) != i for i, m in enumerate(MODALITIES)})
    features, weights = net.weighed(window)
    assert features.shape == (4, 4, 3, 16)
    assert weights.shape == (4, 4, 3)
    assert torch.allclose(weights.sum(dim=2), torch.ones(4, 4))
    for i in range(3):
        assert not weights[i, :, i].any()
        assert weights[i, :, [j for j in range(3) if j != i]].min() > 0.0
    assert weights[3].min() > 0.0
    assert weights[3, :, 0].std() > 0.0, "quality is judged segment by segment"


def test_without_any_modality_a_learned_vector_speaks() -> None:
    net, window = network(), windows(1)
    before, nothing = net(window), net(window.without(*MODALITIES))
    with torch.no_grad():
        net.nothing.add_(1.0 + torch.arange(16.0))
    assert torch.equal(net(window), before)
    assert (net(window.without(*MODALITIES)) - nothing).abs().max() > 1e-4


def test_segments_have_their_places() -> None:
    net, window = network(), windows(1)
    before = net(window)
    with torch.no_grad():
        net.positions.copy_(net.positions.flip(0))
    assert (net(window) - before).abs().max() > 1e-5


def test_the_two_way_lstm_is_pytorchs_on_the_present_frames() -> None:
    torch.manual_seed(0)
    ours, theirs = GatedBiLstm(5, 4), nn.LSTM(5, 4, bidirectional=True, batch_first=True)
    both = {**ours.forth.state_dict(), **{f"{n}_reverse": p for n, p in ours.back.state_dict().items()}}
    theirs.load_state_dict(both)
    x, mask = torch.randn(3, 9, 5), torch.rand(3, 9) < 0.6
    gated, front = ours(x, mask)
    for i in range(3):
        h, _ = theirs(x[i, mask[i]][None])
        change = torch.diff(h, dim=1, prepend=h[:, :1])
        expected = torch.sigmoid(ours.gate(torch.cat([h, change], dim=2))) * h
        assert front[i].sum() == mask[i].sum()
        assert torch.allclose(gated[i, front[i]], expected[0], atol=1e-6)


def test_convolutions_see_zeros_beyond_the_first_and_the_last_frame() -> None:
    torch.manual_seed(0)
    tcn = Convolutions(5, 8, 3, dropout=0.0)
    x, mask = torch.randn(2, 20, 5), torch.rand(2, 20) < 0.6
    out, front = tcn(x, mask)
    for i in range(2):
        h = tcn.enter(x[i, mask[i]])[None]
        for k, (norm, layer) in enumerate(zip(tcn.norms, tcn.layers, strict=True)):
            assert isinstance(layer, nn.Conv1d)
            seen = F.pad(norm(h).transpose(1, 2), (2**k, 2**k))
            seen = F.conv1d(seen, layer.weight, layer.bias, dilation=2**k)
            h = torch.add(h, F.gelu(seen.transpose(1, 2)))
        assert torch.allclose(out[i, front[i]], h[0], atol=1e-5)


def test_convolutions_reach_as_far_as_their_dilations() -> None:
    tcn = Convolutions(3, 4, 3, dropout=0.0)
    x = torch.randn(1, 40, 3, requires_grad=True)
    tcn(x, torch.ones(1, 40, dtype=torch.bool))[0][0, 20].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(dim=1).nonzero().flatten()
    assert (touched.min().item(), touched.max().item()) == (20 - 7, 20 + 7)  # 1 + 2 + 4


@pytest.mark.parametrize(
    "setting",
    [
        {"d_model": 15},
        {"d_model": 6},
        {"segments": 0},
        {"tcn_layers": 17},
        {"dropout": "no"},
        {"layers": True},
    ],
)
def test_impossible_configurations_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        DualStageConfig(**{"shapes": SMALL, **setting})  # type: ignore[arg-type]  # on purpose
