"""Join the branches of words, face and voice into one network, in which what they show adds up.

    intensities = rest + what the words add + what the face adds + what the voice adds

Each hidden unit of the joined network reads one modality, and the words' query is constant. So a modality
that is absent adds exactly nothing: rest is the same for every subset, and a smile counts the same with
words as without (docs/decisions/0033-evidence-adds.md). Branches of the same modality with different seeds
are averaged: their units stand side by side.

Rest is what readers say on average of comments that show none of the six.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch

from emi_models import EMOTIONS
from emi_models.networks.taemi import Taemi
from recipes.compact.sizes import CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from emi_models import Modality

__all__ = ["branch_head", "find_token", "join"]

SEARCH_STEPS: Final = 200
SEARCHES: Final = 5
NEAR: Final = 1e-4  # an error of 1e-4 in intensity

_log = logging.getLogger(__name__)


def branch_head(network: Taemi, modality: Modality) -> tuple[Tensor, Tensor]:
    """The hidden layer of a network with one modality, as it reads this one alone: weights and biases.

    What the absent modalities give is constant, and is taken into the biases.
    """
    d_text, d_model = network.config.shapes.text_dim, network.config.d_model
    parts = {"text": slice(d_text), "audio": slice(d_text, d_text + d_model)}
    parts["vision"] = slice(d_text + d_model, d_text + 2 * d_model)
    hidden: Any = network.head[0]
    with torch.no_grad():
        absent = {
            "text": network.text.token,
            **{name: _absent(network, name) for name in ("audio", "vision")},
        }
        bias = hidden.bias.clone()
        for name, part in parts.items():
            if name != modality:
                bias += hidden.weight[:, part] @ absent[name]
        return hidden.weight[:, parts[modality]].clone(), bias


def _absent(network: Taemi, name: str) -> Tensor:
    """What any query finds in an absent modality, (d_model,): its token, attended to alone."""
    sequence = getattr(network, name)
    x = sequence.project(sequence.token)[None, None]
    normed = sequence.norm(x)
    x = x + sequence.within(normed, normed)
    found: Tensor = sequence.across(torch.zeros_like(x), x)[0, 0]
    return found


def join(
    words: Sequence[Taemi],
    face: Taemi,
    voice: Taemi,
    rest: Tensor,
    neutral_words: Tensor,
    counts: Mapping[tuple[Modality, str], float] = MappingProxyType({}),
) -> Taemi:
    """One network of the three modalities.

    Args:
        words: networks with text only, of different seeds, whose outputs are averaged; not changed.
        face: a network with vision only, whose output is what a face adds to rest; not changed.
        voice: the same, with audio only.
        rest: intensities without any modality, (6,).
        neutral_words: an embedding (384,) from which the token of absent words is searched.
        counts: how many times what a modality adds to an emotion counts; 1 where none is named.
    """
    heads = [branch_head(network, "text") for network in words]
    heads += [branch_head(face, "vision"), branch_head(voice, "audio")]
    shares = [1 / len(words)] * len(words) + [1.0, 1.0]
    sizes = [len(bias) for _, bias in heads]
    network = Taemi(replace(CONFIG, mlp_hidden=sum(sizes))).eval()
    d_text, d_model = CONFIG.shapes.text_dim, CONFIG.d_model
    places = {"text": 0, "audio": d_text, "vision": d_text + d_model}
    text: Modality = "text"
    read: list[Modality] = [*[text] * len(words), "vision", "audio"]
    hidden: Any = network.head[0]
    last: Any = network.head[3]
    nothing = torch.zeros(len(EMOTIONS))
    targets: dict[Modality, Tensor] = {"text": rest, "vision": nothing, "audio": nothing}  # if absent
    with torch.no_grad():
        network.vision.load_state_dict(face.vision.state_dict())
        network.audio.load_state_dict(voice.audio.state_dict())
        for sequence, branch in ((network.vision, face), (network.audio, voice)):
            _fix_query(sequence, branch)
        network.text.project.weight.zero_()
        network.text.project.bias.zero_()
        hidden.weight.zero_()
        last.bias.zero_()
        first = 0
        for branch, modality, (weight, bias), share in zip(
            [*words, face, voice], read, heads, shares, strict=True
        ):
            rows, place = slice(first, first + len(bias)), places[modality]
            hidden.weight[rows, place : place + weight.shape[1]] = weight
            hidden.bias[rows] = bias
            its_last: Any = branch.head[3]
            times = _times(counts, modality)
            last.weight[:, rows] = share * times[:, None] * its_last.weight
            last.bias += share * _stretched(its_last.bias, times, targets[modality])
            first += len(bias)
    n_words = sum(sizes[: len(words)])
    units: dict[Modality, slice] = {"text": slice(n_words), "vision": slice(n_words, n_words + sizes[-2])}
    units["audio"] = slice(n_words + sizes[-2], None)
    biases: dict[Modality, Tensor] = {"vision": _output_bias(face), "audio": _output_bias(voice)}
    biases["text"] = torch.stack([_output_bias(branch) for branch in words]).mean(dim=0)
    starts: dict[Modality, Tensor] = {"text": neutral_words}
    starts |= {"vision": face.vision.token, "audio": voice.audio.token}
    for name, start in starts.items():
        bias = _stretched(biases[name].detach(), _times(counts, name), targets[name])
        find_token(network, name, units[name], bias, start.detach(), targets[name])
    return network


def _times(counts: Mapping[tuple[Modality, str], float], modality: Modality) -> Tensor:
    """How many times what a modality adds counts, (6,)."""
    return torch.tensor([counts.get((modality, emotion), 1.0) for emotion in EMOTIONS])


def _stretched(bias: Tensor, times: Tensor, target: Tensor) -> Tensor:
    """The bias (6,) of a branch whose distance from `target` (6,) counts so many times."""
    return times * bias + (1 - times) * target


def _output_bias(network: Taemi) -> Tensor:
    last: Any = network.head[3]
    return last.bias  # type: ignore[no-any-return]  # a layer of a Sequential is Any


def _fix_query(sequence: Any, branch: Taemi) -> None:  # a FrameSequence, whose layers are Any
    """Make the query that the branch's absent words asked the only one."""
    across = sequence.across
    asked = across.query(branch.text.project(branch.text.token))
    across.query.weight.zero_()
    across.query.bias.copy_(asked)


def find_token(
    network: Taemi, modality: Modality, rows: slice, bias: Tensor, start: Tensor, target: Tensor
) -> None:
    """Set the token of an absent modality so that its hidden units add `target` (6,).

    Args:
        network: the joined network; its token is set.
        modality: which.
        rows: its hidden units.
        bias: its part of the output's bias, (6,).
        start: where the search begins.
        target: what the units are to add, with that bias.
    """
    stream = getattr(network, modality)
    hidden: Any = network.head[0]
    last: Any = network.head[3]
    token = torch.nn.Parameter(start.clone())
    stream.token = token
    d_text, d_model = network.config.shapes.text_dim, network.config.d_model
    place = {"text": 0, "audio": d_text, "vision": d_text + d_model}[modality]

    def distance() -> Tensor:
        optimizer.zero_grad()
        found = token if modality == "text" else _absent(network, modality)
        units = torch.nn.functional.gelu(
            hidden.weight[rows, place : place + len(found)] @ found + hidden.bias[rows]
        )
        loss: Tensor = 1e4 * (last.weight[:, rows] @ units + bias - target).square().sum()
        loss.backward()
        return loss

    chance = torch.Generator().manual_seed(0)
    for search in range(SEARCHES):  # from another place if the last one ended where nothing changes any more
        with torch.no_grad():
            token.copy_(start + search * torch.randn(start.shape, generator=chance) * start.std())
        optimizer = torch.optim.LBFGS([token], max_iter=SEARCH_STEPS, line_search_fn="strong_wolfe")
        optimizer.step(distance)
        if (found := float(distance().detach())) < NEAR:
            break
    else:
        _log.warning("an absent %s adds what it should not: squared error %.2g", modality, found / 1e4)
    for parameter in network.parameters():
        parameter.grad = None
