from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from emi_models.encoders.wav2vec_stream import CachedLayers
from tests.models.encoders.tiny_models import WIDTH, tiny_speech

NEW, EDGE, LEFT = 5, 8, 10
REACH = 8  # of the tiny models' convolution for positions: 8 frames back, 7 on
KINDS = pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
STABLE = pytest.mark.parametrize("stable", [True, False], ids=["norm first", "norm last"])


def tiny(folder: Path, kind: str, **config: Any) -> Any:
    return tiny_speech(folder, kind, **config)[1]


def present_at(step: int, layers: CachedLayers, found: int = NEW) -> torch.Tensor:
    places = torch.arange(layers.slots)
    start = layers.slots - layers.new
    present: torch.Tensor = (places >= start - step * NEW) & (places < start + found)
    return present


def steps_of(layers: Any, frames: torch.Tensor) -> list[torch.Tensor]:
    """What each step finds of edge and new frames."""
    with torch.inference_mode():
        return [layers(part, present_at(step, layers)).clone() for step, part in enumerate(frames.split(NEW))]


@KINDS
@STABLE
def test_one_layer_with_all_positions_settled_is_exact_in_every_step(
    tmp_path: Path, kind: str, stable: bool
) -> None:
    """Keys of one layer depend on frame and position alone; the edge is the reach of the convolution.

    So what is final equals transformers' own layer over just the frames that are in reach of the step.
    """
    model = tiny(tmp_path, kind, do_stable_layer_norm=stable, num_hidden_layers=1)
    encoder = model.encoder
    torch.manual_seed(0)
    frames = torch.randn(40, WIDTH)
    found = steps_of(CachedLayers(model, new=NEW, edge=EDGE, left=LEFT), frames)
    compared = 0
    for step, states in enumerate(found):
        so_far = frames[: (step + 1) * NEW][None]
        first = step * NEW - EDGE
        with torch.inference_mode():
            placed = so_far + encoder.pos_conv_embed(so_far)
            within = placed[:, max(0, first - LEFT) :]
            within = within if stable else encoder.layer_norm(within)
            whole = encoder.layers[0](within)
            whole = whole[0] if isinstance(whole, tuple) else whole
            whole = encoder.layer_norm(whole) if stable else whole
        final = states[max(0, -first) : NEW]
        expected = whole[0, max(0, first) - max(0, first - LEFT) :][: len(final)]
        torch.testing.assert_close(final, expected, atol=2e-5, rtol=0)
        compared += len(final)
    assert compared == 40 - EDGE


@KINDS
@STABLE
def test_the_first_step_is_a_whole_pass(tmp_path: Path, kind: str, stable: bool) -> None:
    model = tiny(tmp_path, kind, do_stable_layer_norm=stable)
    torch.manual_seed(1)
    frames = torch.randn(NEW, WIDTH)
    states = steps_of(CachedLayers(model, new=NEW, edge=EDGE, left=LEFT), frames)[0]
    with torch.inference_mode():
        whole = model.encoder(frames[None]).last_hidden_state[0]
    torch.testing.assert_close(states[EDGE:], whole, atol=2e-5, rtol=0)


def test_batch_normalised_positions_of_some_hubert_models(tmp_path: Path) -> None:
    model = tiny(tmp_path, "hubert", conv_pos_batch_norm=True)
    norm = model.encoder.pos_conv_embed.batch_norm
    torch.manual_seed(2)
    for values in (norm.running_mean, norm.bias.data):
        values.copy_(torch.randn(WIDTH))
    frames = torch.randn(NEW, WIDTH)
    states = steps_of(CachedLayers(model, new=NEW, edge=EDGE, left=LEFT), frames)[0]
    with torch.inference_mode():
        whole = model.encoder(frames[None]).last_hidden_state[0]
    torch.testing.assert_close(states[EDGE:], whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("new", "edge", "left"), [(4, 9, 2), (6, 0, 0), (3, 3, 30)])
def test_any_sizes_go_and_absent_frames_are_never_read(
    tmp_path: Path, new: int, edge: int, left: int
) -> None:
    layers = CachedLayers(tiny(tmp_path, "wavlm"), new=new, edge=edge, left=left)
    torch.manual_seed(3)
    frames = torch.randn(6, new, WIDTH)

    def run() -> torch.Tensor:
        places, start = torch.arange(layers.slots), layers.slots - new
        with torch.inference_mode():
            return torch.stack([layers(part, places >= start - k * new) for k, part in enumerate(frames)])

    clean = run()
    layers.reset()
    layers.keys.fill_(7.0)
    layers.values.fill_(-7.0)  # left over from what was before, behind the mask
    again = run()
    for step in range(len(frames)):
        there = max(0, edge - step * new)
        assert torch.equal(clean[step, there:], again[step, there:])


@KINDS
def test_it_compiles_once_for_all_steps(tmp_path: Path, kind: str) -> None:
    layers = CachedLayers(tiny(tmp_path, kind), new=NEW, edge=EDGE, left=LEFT)
    torch.manual_seed(4)
    frames = torch.randn(30, WIDTH)
    plain = steps_of(layers, frames)
    layers.reset()
    places = {name: state.data_ptr() for name, state in layers.named_buffers()}
    counter = CompileCounter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = steps_of(torch.compile(layers, fullgraph=True, backend=counter), frames)
    assert counter.frame_count == 1
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert {name: state.data_ptr() for name, state in layers.named_buffers()} == places


def test_no_weight_is_copied(tmp_path: Path) -> None:
    model = tiny(tmp_path, "wavlm")
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    layers = CachedLayers(model, new=NEW, edge=EDGE, left=LEFT)
    assert {parameter.data_ptr() for parameter in layers.parameters()} <= theirs
    assert layers.state_dict().keys() <= {f"encoder.{name}" for name in model.encoder.state_dict()}


def test_a_step_of_the_published_size_is_less_than_a_quarter_of_a_whole_pass() -> None:
    """Counted, not timed: half a second of sound against 12 s again, audeering's shape, without weights."""
    import transformers

    large = transformers.Wav2Vec2Config(
        hidden_size=1024,
        num_hidden_layers=12,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
    )
    with torch.device("meta"):
        model = transformers.Wav2Vec2Model(large).eval()
        layers = CachedLayers(model, new=25, edge=12, left=150)
        present = torch.ones(layers.slots, dtype=torch.bool)
    with torch.no_grad(), FlopCounterMode(display=False) as whole:
        model(torch.empty(1, 192_000, device="meta"))
    with torch.no_grad(), FlopCounterMode(display=False) as step:
        states = model.feature_extractor(torch.empty(1, 8_080, device="meta")).transpose(1, 2)
        layers(model.feature_projection(states)[0][0], present)
    assert 200e9 < whole.get_total_flops() < 350e9
    assert step.get_total_flops() < 0.06 * whole.get_total_flops()
