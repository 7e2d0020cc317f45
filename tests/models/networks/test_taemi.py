"""TAEMI: sizes of the paper, missing tokens, modality dropout, and what each ablation takes away."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emi_models import MODALITIES, Modality
from emi_models.checkpoint import CheckpointHeader, load_checkpoint, read_header, save_checkpoint
from emi_models.inputs import TAEMI_SHAPES, FusionInputs
from emi_models.networks import describe_config
from emi_models.networks.base import Attention
from emi_models.networks.taemi import Taemi, TaemiConfig
from tests.models.networks.zoo import EXACT, SMALL, windows

WIDTH = 16


def network(modalities: tuple[Modality, ...] = MODALITIES, **settings: object) -> Taemi:
    torch.manual_seed(0)
    chosen = {"d_model": WIDTH, "mlp_hidden": WIDTH, **settings}
    return Taemi(TaemiConfig(shapes=SMALL, modalities=modalities, **chosen)).eval()  # type: ignore[arg-type]  # settings of many types


def fused(net: Taemi, window: FusionInputs) -> torch.Tensor:
    """The vector f that the head is given."""
    seen: list[torch.Tensor] = []
    hook = net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    net(window)
    hook.remove()
    return seen[0]


def names(net: Taemi) -> set[str]:
    """Modules that have parameters, by the first two parts of their names."""
    return {
        ".".join(name.split(".")[:2]) for name, _ in net.named_parameters() if not name.startswith("head")
    }


def test_the_papers_sizes() -> None:
    net = Taemi(TaemiConfig(shapes=TAEMI_SHAPES))
    assert net.head[0].in_features == 1792
    assert net.head[0].out_features == 512
    assert net.head[3].out_features == 6
    assert net.audio.token.shape == (1027,)
    assert net.vision.token.shape == net.text.token.shape == (768,)
    assert 0.015 < net.audio.token.std().item() < 0.025
    assert len(net.head) == 4, "no sigmoid: Linear, GELU, Dropout, Linear"


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"attention": "self"}, 768 + 512 + 512),
        ({"missing": "zero"}, 768 + 512 + 512),
        ({"attention": "none"}, 3 * 512),
        ({"anchor": "audio"}, 3 * 512),
        ({"anchor": "vision"}, 3 * 512),
    ],
)
def test_the_ablations_sizes(settings: dict[str, object], width: int) -> None:
    with torch.device("meta"):
        net = Taemi(TaemiConfig(shapes=TAEMI_SHAPES, **settings))  # type: ignore[arg-type]  # as above
    assert net.head[0].in_features == width


def test_a_checkpoint_from_before_the_ablations_is_the_default(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "old.safetensors"
    metadata = CheckpointHeader(
        system="taemi",
        config=describe_config(net.config),
        modalities=MODALITIES,
        encoders=dict.fromkeys(MODALITIES, "features@1"),
        data="none",
        licence="Apache-2.0",
        scores={},
        created_by="test",
    )
    save_checkpoint(path, net, metadata)
    later = {"anchor", "attention", "missing"}
    assert later < set(read_header(path).config)
    older = asdict(metadata) | {"config": {k: v for k, v in metadata.config.items() if k not in later}}
    save_file(load_file(path), path, metadata={"emi_checkpoint": json.dumps(older)})
    assert not later & set(read_header(path).config)

    config = load_checkpoint(path).network.config
    assert config == net.config
    assert isinstance(config, TaemiConfig)
    assert (config.anchor, config.attention, config.missing) == ("text", "anchored", "token")
    window = windows(2)
    assert torch.equal(load_checkpoint(path).network(window), net(window))


def test_the_order_of_frames_does_not_matter() -> None:
    net, window = network(), windows(2)
    order = torch.randperm(SMALL.audio_frames)
    shuffled = replace(window, audio=window.audio[:, order], audio_mask=window.audio_mask[:, order])
    assert (net(shuffled) - net(window)).abs().max() <= EXACT


@pytest.mark.parametrize("missing", ["token", "zero"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_missing_modality_is_its_token_or_zeros_as_one_frame(modality: Modality, missing: str) -> None:
    net, window = network(missing=missing), windows(2)
    x = getattr(window, modality)
    stand_in = getattr(net, modality).token.detach() if missing == "token" else torch.zeros(x.shape[-1])
    if modality == "text":
        explicit = replace(window, text=stand_in.expand(2, -1))
    else:
        frames, mask = x.clone(), torch.zeros_like(getattr(window, f"{modality}_mask"))
        frames[:, 0], mask[:, 0] = stand_in, True
        explicit = replace(window, **{modality: frames, f"{modality}_mask": mask})
    assert (net(window.without(modality)) - net(explicit)).abs().max() <= EXACT


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_untrained_modality_takes_a_short_cut_to_the_same_result(modality: Modality) -> None:
    net, window = network(tuple(m for m in MODALITIES if m != modality)), windows(3)
    whole = network()
    whole.load_state_dict(net.state_dict())
    assert (net(window) - whole(window.without(modality))).abs().max() <= EXACT


def test_training_drops_modalities_at_the_given_rate_and_evaluation_never() -> None:
    net = network()
    present = torch.ones(20_000, dtype=torch.bool)
    torch.manual_seed(0)
    net.train()
    share = net.text.usable(present).float().mean().item()
    assert 0.89 < share < 0.91
    assert not net.text.usable(~present).any()
    net.eval()
    assert net.text.usable(present).all()


@pytest.mark.parametrize(("rate", "varies"), [(0.0, False), (0.5, True)])
def test_without_modality_dropout_training_uses_every_modality(rate: float, varies: bool) -> None:
    net, window = network(dropout=0.0, modality_dropout=rate).train(), windows(8)
    torch.manual_seed(0)
    assert torch.equal(net(window), net(window)) is not varies


TEXT, VOICE, FACE = {"text"}, {"audio"}, {"vision"}


@pytest.mark.parametrize(
    ("settings", "parts"),  # whose change is seen in which part of f
    [
        ({}, (TEXT, TEXT | VOICE, TEXT | FACE)),
        ({"missing": "zero"}, (TEXT, TEXT | VOICE, TEXT | FACE)),
        ({"anchor": "audio"}, (VOICE, TEXT, VOICE | FACE)),
        ({"anchor": "vision"}, (FACE, TEXT, FACE | VOICE)),
        ({"attention": "self"}, (TEXT, VOICE, FACE)),
        ({"attention": "none"}, (TEXT, VOICE, FACE)),
    ],
)
def test_the_anchor_queries_the_two_others_and_nothing_does_without_anchor(
    settings: dict[str, object], parts: tuple[set[str], ...]
) -> None:
    net, window = network(MODALITIES, **settings), windows(1)
    before = fused(net, window)
    first = before.shape[1] - 2 * WIDTH
    seen: list[set[str]] = [set(), set(), set()]
    for modality in MODALITIES:
        change = (fused(net, replace(window, **{modality: getattr(window, modality) + 1.0})) - before).abs()
        for i, part in enumerate(change.split([first, WIDTH, WIDTH], dim=1)):
            if part.max() > EXACT:
                seen[i].add(modality)
    assert tuple(seen) == parts


def test_plain_concatenation_knows_only_the_mean_of_the_frames_and_attention_more() -> None:
    window = windows(2)
    mask = window.audio_mask[:, :, None]
    mean = (window.audio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    flat = replace(window, audio=mean.expand_as(window.audio))
    plain = network(attention="none")
    assert (plain(flat) - plain(window)).abs().max() <= EXACT
    for attention in ("self", "anchored"):
        net = network(attention=attention)
        assert (net(flat) - net(window)).abs().max() > 1e-4


def test_a_variant_has_no_parameters_that_it_does_not_use() -> None:
    whole = names(network())
    assert names(network(missing="zero")) == whole - {"text.token", "audio.token", "vision.token"}
    crossing = {"audio.across", "vision.across"}
    assert names(network(attention="self")) == whole - crossing - {"text.project"}
    attending = {"audio.within", "vision.within", "audio.norm", "vision.norm"}
    assert names(network(attention="none")) == whole - crossing - attending
    assert names(network(anchor="audio")) == (whole - {"audio.across"}) | {"text.across"}
    assert names(network(anchor="vision")) == (whole - {"vision.across"}) | {"text.across"}


def test_to_attend_to_words_alone_is_to_take_their_value() -> None:
    net = network(anchor="audio")
    attention = Attention(WIDTH, 4, 0.0).eval()
    value, out = net.text.across
    attention.value.load_state_dict(value.state_dict())
    attention.out.load_state_dict(out.state_dict())
    t, anything = windows(3).text, torch.randn(3, 1, WIDTH)
    expected = attention(anything, net.text.project(t)[:, None]).squeeze(1)
    assert (net.text.queried(t) - expected).abs().max() <= EXACT


@pytest.mark.parametrize(
    "setting",
    [
        {"heads": 3},
        {"d_model": 0},
        {"dropout": 1.0},
        {"modality_dropout": -0.1},
        {"modalities": ()},
        {"anchor": "smell"},
        {"attention": True},
        {"missing": ["token"]},
        {"anchor": "audio", "attention": "self"},
    ],
)
def test_impossible_configurations_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        TaemiConfig(**{"shapes": SMALL, "d_model": WIDTH, **setting})  # type: ignore[arg-type]  # on purpose
