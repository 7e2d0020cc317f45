"""The two-stage framework: published sizes, branches, modality dropout, hooks for training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch

from emi_models import MODALITIES, Modality
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks.two_stage import BranchEncoder, TwoStage, TwoStageConfig
from tests.models.networks.zoo import EXACT, SMALL, windows

PAPER = FusionShapes(vision_frames=400, vision_dim=768, audio_frames=599, audio_dim=1024, text_dim=768)


def network(modalities: tuple[Modality, ...] = MODALITIES, **settings: object) -> TwoStage:
    torch.manual_seed(0)
    chosen = {"hidden": 16, "motion_hidden": 8, "fusion_hidden": 16, **settings}
    return TwoStage(TwoStageConfig(shapes=SMALL, modalities=modalities, **chosen)).eval()  # type: ignore[arg-type]  # settings of many types


def fused(net: TwoStage, window: FusionInputs) -> torch.Tensor:
    """The embeddings side by side, as the regressor is given them."""
    seen: list[torch.Tensor] = []
    hook = net.fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    net(window)
    hook.remove()
    return seen[0]


def count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def test_the_papers_sizes() -> None:
    net = TwoStage(TwoStageConfig(shapes=PAPER))
    assert net.branches == ("text", "audio", "vision")
    assert [count(net.branch_parameters(name)) for name in net.branches] == [297_600, 397_441, 298_369]
    assert count(net.fusion_parameters()) == 447_366
    assert count(net.parameters()) == 297_600 + 397_441 + 298_369 + 447_366 == 1_440_776


@pytest.mark.parametrize(
    ("modalities", "motion_dim", "branches"),
    [
        (MODALITIES, 0, ("text", "audio", "vision")),
        (MODALITIES, 2, ("text", "audio", "vision", "motion")),
        (MODALITIES, SMALL.vision_dim, ("text", "audio", "motion")),
        (("text", "vision"), 2, ("text", "vision", "motion")),
        (("text",), 2, ("text",)),
    ],
)
def test_branches_follow_from_modalities_and_motion(
    modalities: tuple[Modality, ...], motion_dim: int, branches: tuple[str, ...]
) -> None:
    net, window = network(modalities, motion_dim=motion_dim), windows(3)
    assert net.branches == branches
    encoded = net.encode(window)
    assert tuple(encoded) == tuple(net.presence(window)) == branches
    widths = {name: tuple(x.shape) for name, x in encoded.items()}
    assert widths == {name: (3, 8 if name == "motion" else 16) for name in branches}
    assert torch.equal(net.fuse(encoded, net.presence(window)), net(window))
    owned = [p for name in branches for p in net.branch_parameters(name)] + list(net.fusion_parameters())
    assert {id(p) for p in owned} == {id(p) for p in net.parameters()}
    assert len(owned) == len({id(p) for p in owned})


def test_motion_is_the_last_columns_of_a_vision_frame() -> None:
    net, window = network(motion_dim=2), windows(2)
    face, motion = window.vision.clone(), window.vision.clone()
    face[:, :, :4] += torch.randn(4)
    motion[:, :, 4:] += torch.randn(2)
    before = net.encode(window)
    for changed, name in ((face, "vision"), (motion, "motion")):
        after = net.encode(replace(window, vision=changed))
        assert {key for key in before if not torch.equal(before[key], after[key])} == {name}


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_absent_branch_is_zeros_at_the_fusion(modality: Modality) -> None:
    net, window = network(motion_dim=2), windows(2)
    parts = dict(
        zip(net.branches, fused(net, window.without(modality)).split([16, 16, 16, 8], 1), strict=True)
    )
    silent = {name for name, part in parts.items() if not part.any()}
    assert silent == ({"vision", "motion"} if modality == "vision" else {modality})
    assert not fused(net, window.without(*MODALITIES)).any()


def test_words_are_brought_to_unit_length() -> None:
    net, window = network(), windows(2)
    for factor in (1e-3, 37.0):  # so small that the norm behind would notice
        assert (net(replace(window, text=window.text * factor)) - net(window)).abs().max() <= EXACT
    assert (net(replace(window, text=-window.text)) - net(window)).abs().max() > 1e-4


def test_pooling_weighs_frames_by_their_score_and_not_by_their_order() -> None:
    net, window = network(), windows(2)
    order = torch.randperm(SMALL.audio_frames)
    shuffled = replace(window, audio=window.audio[:, order], audio_mask=window.audio_mask[:, order])
    assert (net(shuffled) - net(window)).abs().max() <= EXACT
    encoder = net.encoders["audio"]
    assert isinstance(encoder, BranchEncoder)
    loud = torch.zeros(1, 3, SMALL.audio_dim)
    loud[0, 1] = 100.0 * encoder.score.weight.detach()[0]
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert (encoder(loud, mask) - encoder(loud[:, 1])).abs().max() <= EXACT


def test_motion_next_to_faces_has_frames_and_a_mask_of_its_own() -> None:
    net = network(motion_dim=2, motion_mask=True)
    assert net.branches == ("text", "audio", "vision", "motion")
    window = windows(3)
    frames = window.vision.clone()
    frames[:, :, -2:] = 0.0
    frames[:, ::2, -2] = 1.0  # even frames hold a face, odd ones motion
    frames[:, 1::2, -1] = 1.0
    frames[2, :, -1] = 0.0  # no motion in the last window
    mask = torch.ones_like(window.vision_mask)
    window = replace(window, vision=frames, vision_mask=mask)
    presence = net.presence(window)
    assert presence["vision"].tolist() == [True, True, True]
    assert presence["motion"].tolist() == [True, True, False]
    before = net.encode(window)
    for odd, columns, name in ((0, slice(0, 2), "vision"), (1, slice(2, 4), "motion")):
        other = frames.clone()
        other[:2, 1 - odd :: 2, columns] = 9.0  # what a frame does not hold is not read
        after = net.encode(replace(window, vision=other))
        assert all(torch.equal(before[key], after[key]) for key in before)
        other = frames.clone()
        other[:2, odd::2, columns] += 1.0 + torch.arange(2)
        after = net.encode(replace(window, vision=other))
        assert {key for key in before if not torch.equal(before[key], after[key])} == {name}


def reference(encoder: BranchEncoder, frames: torch.Tensor) -> torch.Tensor:
    """What a branch makes of the frames (T, D) of one clip, written without masks."""
    x = frames[None]
    if encoder.pooling == "mean_std":
        pooled = torch.cat([x.mean(1), x.std(1, correction=0)], 1)
    elif encoder.pooling in ("mean", "linear"):
        pooled = x.mean(1)
    elif encoder.pooling in ("lstm", "gru"):
        pooled = encoder.recurrent(x)[0][:, -1]
    else:
        for forth, back in zip(encoder.recurrent.forth, encoder.recurrent.back, strict=True):  # type: ignore[arg-type]  # modules
            x = torch.cat([forth(x)[0], back(x.flip(1))[0].flip(1)], dim=2)
        pooled = (encoder.score(x).softmax(1) * x).sum(1)
    return encoder.block(pooled)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any


@pytest.mark.parametrize("pooling", ["mean", "mean_std", "linear", "lstm", "gru", "bilstm"])
def test_each_pooling_is_its_plain_form_on_the_present_frames(pooling: str) -> None:
    net, window = network(audio_pooling=pooling), windows(3)
    encoder = net.encoders["audio"]
    assert isinstance(encoder, BranchEncoder)
    found = net.encode(window, "audio")["audio"]
    for row in range(3):
        expected = reference(encoder, window.audio[row, window.audio_mask[row]])
        assert (found[row] - expected[0]).abs().max() <= EXACT
    assert found.isfinite().all()
    assert net(window.without("audio")).isfinite().all()


def test_words_are_a_sequence_of_one_to_an_lstm() -> None:
    net, window = network(text_pooling="lstm"), windows(2)
    encoder = net.encoders["text"]
    assert isinstance(encoder, BranchEncoder)
    words = torch.nn.functional.normalize(window.text, dim=1)
    expected = encoder.block(encoder.recurrent(words[:, None])[0][:, 0])
    assert (net.encode(window, "text")["text"] - expected).abs().max() <= EXACT


def test_a_spread_of_nothing_has_a_gradient() -> None:
    net = network(audio_pooling="mean_std").train()
    window = windows(2)
    first = torch.zeros_like(window.audio_mask)
    first[:, 0] = True
    net(replace(window, audio_mask=first)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_training_drops_branches_scales_the_rest_and_always_keeps_one() -> None:
    net = network(modality_dropout=0.3, dropout=0.0).train()
    rows = 20_000
    encoded = {name: torch.ones(rows, 16) for name in net.branches}
    yes, no = torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool)
    seen: list[torch.Tensor] = []
    net.fusion.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][:, ::16])
    )  # one value a branch
    torch.manual_seed(0)
    net.fuse(encoded, dict.fromkeys(net.branches, yes))
    net.fuse(encoded, {"text": yes, "audio": no, "vision": yes})
    net.fuse(encoded, {"text": no, "audio": yes, "vision": no})
    net.fuse(encoded, dict.fromkeys(net.branches, no))
    kept = [x > 0 for x in seen]
    assert torch.equal(seen[0], torch.where(kept[0], 1 / 0.7, 0.0))
    assert (kept[0].sum(1) >= 1).all()
    # 0.7 by chance, and a third of the rows (0.027) in which none of three would be left.
    assert kept[0].float().mean(0).tolist() == pytest.approx([0.7 + 0.027 / 3] * 3, abs=0.012)
    assert (kept[1].sum(1) >= 1).all()
    assert not kept[1][:, 1].any(), "an absent branch was kept"
    assert kept[2].tolist() == [[False, True, False]] * rows
    assert not kept[3].any()


def test_evaluation_drops_and_scales_nothing() -> None:
    net, window = network(modality_dropout=0.9), windows(4)
    encoded = net.encode(window)
    assert torch.equal(fused(net, window), torch.cat([encoded[name] for name in net.branches], dim=1))


@pytest.mark.parametrize(
    "setting",
    [
        {"motion_dim": SMALL.vision_dim + 1},
        {"motion_dim": -1},
        {"motion_mask": True},
        {"motion_mask": True, "motion_dim": SMALL.vision_dim - 2},
        {"text_pooling": "attention"},
        {"audio_pooling": "mlp"},
        {"hidden": 15, "audio_pooling": "bilstm"},
        {"hidden": 0},
        {"motion_hidden": 1.5},
        {"modality_dropout": 1},
        {"modalities": ("smell",)},
    ],
)
def test_impossible_configurations_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        TwoStageConfig(**{"shapes": SMALL, **setting})  # type: ignore[arg-type]  # on purpose
