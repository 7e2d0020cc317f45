"""Audio features of the `taemi` bundle from live sound, step by step, and the slow reference to compare with.

`Wav2vecFront` runs wav2vec 2.0's convolutions on the new samples of each step. The transformer then sees
the new frames in one of two ways: with cached keys and values, or with the last seconds computed again.
`CachedLayers` is the transformer of wav2vec 2.0, HuBERT and WavLM for the first way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emi_models.encoders.prosody import RunningMoments
from emi_models.encoders.wav2vec import (
    HOP_SAMPLES,
    KERNELS,
    OVERLAP_SAMPLES,
    PIECE_FRAMES,
    PIECE_SAMPLES,
    RATE_HZ,
    STRIDES,
    VARIANCE_FLOOR,
    check_sound,
    frames_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.encoders.wav2vec import Wav2vecEncoder

__all__ = [
    "CachedLayers",
    "CachedPass",
    "Pass",
    "RecomputedPass",
    "SlidingWav2vec",
    "Strategy",
    "StreamingWav2vec",
    "Wav2vecFront",
    "WindowFrames",
]

Strategy = Literal["cached", "recompute"]


class CachedLayers(nn.Module):
    """One step of the transformer, always of the same shapes.

    A step sees, in the order of time, `left` frames whose keys and values each layer has kept, `edge` frames
    that were new a step ago, and `new` ones. The last two, edge + new, are its queries. Behind it the first
    `new` of these are final and their keys and values kept; the last `edge` are queries once more.

    The positional convolution sees as far back as its kernel reaches, independent of `left`, and zeros beyond
    the last frame, as in a whole pass. WavLM's position bias depends on distances only, which are the
    same in every step, so it is computed once.

    Holds the state in buffers and the model's layers themselves, no copy of a weight but one: the kernel of
    that convolution, stored as direction and length, is multiplied out once (33 MB at the published size, and
    35 ms a step saved on one core).
    """

    keys: Tensor  # (layers, heads, left, head size)
    values: Tensor
    behind: Tensor  # (reach + edge, hidden size): projected frames before the new ones
    kernel: Tensor  # (hidden size, hidden size / groups, kernel size), of the convolution for positions
    bias: Tensor  # (heads, edge + new, left + edge + new)

    def __init__(self, model: Any, *, new: int, edge: int, left: int) -> None:
        """Share the layers of a transformers model; counts are of frames."""
        super().__init__()
        self.encoder = model.encoder
        self.stable = bool(model.config.do_stable_layer_norm)
        self.new, self.edge, self.left = new, edge, left
        with torch.no_grad():
            kernel = self.encoder.pos_conv_embed.conv.weight.detach()
        self.before = kernel.shape[-1] // 2  # what the convolution sees before a frame
        self.after = kernel.shape[-1] - 1 - self.before  # and after it
        self.slots = max(left, self.before) + edge + new  # frames that a step has anything of
        heads = model.config.num_attention_heads
        width = model.config.hidden_size
        weight = self.encoder.layer_norm.weight
        kept = (len(self.encoder.layers), heads, left, width // heads)
        for name, shape in (("keys", kept), ("values", kept), ("behind", (self.before + edge, width))):
            self.register_buffer(name, weight.new_zeros(shape), persistent=False)
        self.register_buffer("kernel", kernel, persistent=False)
        self.biased = hasattr(self.encoder.layers[0].attention, "rel_attn_embed")
        if self.biased:
            self.register_buffer("bias", self._position_bias(), persistent=False)

    def reset(self) -> None:
        """Forget all frames; what the buffers then hold is masked or zero."""
        for state in (self.keys, self.values, self.behind):
            state.zero_()

    def forward(self, frames: Tensor, present: Tensor) -> Tensor:
        """Last hidden states of the edge and the new frames, shape (edge + new, hidden size).

        Args:
            frames: shape (new, hidden size), projected; zeros where there is none.
            present: shape (slots,), bool, whether there is a frame in each slot: those before the edge, the
                edge, the new ones.
        """
        there = torch.cat((self.behind, frames))  # (before + edge + new, hidden size)
        states = there[self.before :] + self._positions(there, present[-len(there) :])
        self.behind.copy_(there[self.new :])
        visible = present[-(self.left + len(states)) :].expand(len(states), -1)
        if not self.stable:
            states = self.encoder.layer_norm(states)
        for number, layer in enumerate(self.encoder.layers):
            states = self._layer(number, layer, states, visible)
        result: Tensor = self.encoder.layer_norm(states) if self.stable else states
        return result

    def _positions(self, there: Tensor, present: Tensor) -> Tensor:
        embed = self.encoder.pos_conv_embed
        taken = there.T[None]  # (1, hidden size, frames)
        if getattr(embed, "batch_norm", None) is not None:  # some HuBERT models: what it adds is not padding
            taken = embed.batch_norm(taken) * present
        taken = F.pad(taken, (0, self.after))
        conv = embed.conv
        mixed = F.conv1d(taken, self.kernel, conv.bias, groups=conv.groups)
        positions: Tensor = embed.activation(mixed)[0].T
        return positions

    def _layer(self, number: int, layer: Any, states: Tensor, visible: Tensor) -> Tensor:
        if not self.stable:
            states = layer.layer_norm(states + self._attend(number, layer.attention, states, visible))
            normal: Tensor = layer.final_layer_norm(states + layer.feed_forward(states))
            return normal
        states = states + self._attend(number, layer.attention, layer.layer_norm(states), visible)
        states = states + layer.feed_forward(layer.final_layer_norm(states))
        adapter = getattr(layer, "adapter_layer", None)
        return states if adapter is None else states + adapter(states)

    def _attend(self, number: int, attention: Any, states: Tensor, visible: Tensor) -> Tensor:
        count = len(states)

        def by_head(projected: Tensor) -> Tensor:  # (heads, frames, head size)
            return projected.view(count, attention.num_heads, attention.head_dim).transpose(0, 1)

        keys = torch.cat((self.keys[number], by_head(attention.k_proj(states))), dim=1)
        values = torch.cat((self.values[number], by_head(attention.v_proj(states))), dim=1)
        mask = visible
        if self.biased:
            mask = self._gate(attention, states) * self.bias
            mask = mask.masked_fill(~visible, float("-inf"))[None]
        queries = by_head(attention.q_proj(states))
        mixed = F.scaled_dot_product_attention(queries[None], keys[None], values[None], attn_mask=mask)[0]
        self.keys[number].copy_(keys[:, self.new : self.new + self.left])
        self.values[number].copy_(values[:, self.new : self.new + self.left])
        projected: Tensor = attention.out_proj(mixed.transpose(0, 1).reshape(count, -1))
        return projected

    def _gate(self, attention: Any, states: Tensor) -> Tensor:
        """WavLM: how much each query heeds positions, (heads, queries, 1); arXiv:2110.13900."""
        by_head = states.view(len(states), attention.num_heads, attention.head_dim).transpose(0, 1)
        gates = attention.gru_rel_pos_linear(by_head).view(*by_head.shape[:2], 2, 4).sum(-1).sigmoid()
        update, reset = gates.chunk(2, dim=-1)
        gate: Tensor = update * (reset * attention.gru_rel_pos_const[0] - 1.0) + 2.0
        return gate

    def _position_bias(self) -> Tensor:
        attention = self.encoder.layers[0].attention  # the other layers use this one's
        device = attention.rel_attn_embed.weight.device
        places = torch.arange(self.left + self.edge + self.new, device=device)
        distances = places[None, :] - places[self.left :, None]
        with torch.no_grad():
            buckets = attention._relative_positions_bucket(distances)
            bias: Tensor = attention.rel_attn_embed(buckets).permute(2, 0, 1).contiguous()
        return bias


@dataclass(frozen=True, slots=True, eq=False)
class WindowFrames:
    """Features of the last frames: `values`, (n, dim), float32; `first` is the number of the first."""

    first: int
    values: NDArray[np.float32]


class StreamingWav2vec:
    """Turns live 16 kHz mono sound into the features of `Wav2vecEncoder`, each computed once.

    Frame k since the last `reset` is about samples [320k, 320k + 400); columns are the encoder's, whose
    weights are shared. Work is done in steps on a fixed grid: step j has the frames up to 25j (at 0.5 s), and
    needs 80 samples more than its hops. So any way to cut the stream into pushes gives the same features.

    A step gives out what became final: frames that at least `hold_back_s` of sound follow. So a feature is
    out `hop_s` + `hold_back_s` + 25 ms after its sound at the latest, plus the time that a step takes.

    Against a whole pass (`Wav2vecEncoder.encode`, the oracle):

    - convolutions: exact, where each layer normalises each frame (`feat_extract_norm` "layer", as all large
      models have it); with "group", and where sound is normalised, by the statistics of the last 12 s;
    - transformer, "recompute": `left_context_s` of frames, the open ones and no more are passed again in each
      step. With all of the context (None) and nothing held back, a step's frames are those of a whole pass
      over the sound so far;
    - transformer, "cached": keys and values of the left context are kept in each layer as they were when
      their frames became final. The first step is a whole pass; later ones differ by that and by the cut.
      Tensors are allocated once, and every step has the same shapes.

    Runs where the encoder's model is, in float32; no thread or clock; one thread at a time.

    Source: keys and values of the past, Dai et al. 2019 (Transformer-XL, arXiv:1901.02860); positions from
    Baevski et al. 2020 (arXiv:2006.11477), section 2, and Chen et al. 2022 (WavLM, arXiv:2110.13900).
    """

    def __init__(
        self,
        encoder: Wav2vecEncoder,
        *,
        hop_s: float = 0.5,
        left_context_s: float | None = 3.0,
        hold_back_s: float = 0.24,
        strategy: Strategy = "cached",
    ) -> None:
        """Share the weights of `encoder`; times are in seconds, whole numbers of frames of 20 ms.

        Raises:
            InputError: a time is not, or "cached" was asked for without a bound of its context.
        """
        new = _frames("hop_s", hop_s, least=1)
        edge = _frames("hold_back_s", hold_back_s)
        unbounded = left_context_s is None or left_context_s == math.inf
        left = None if unbounded else _frames("left_context_s", left_context_s)
        import torch

        self._torch = torch
        self._encoder = encoder
        self._steps = _Steps(new * HOP_SAMPLES)
        self._front = Wav2vecFront(encoder, spans=_spans(new))
        self._pass: Pass
        if strategy == "recompute":
            self._pass = RecomputedPass(encoder.model, edge=edge, left=left)
        elif strategy != "cached":
            raise _refused(f"strategy is {strategy!r}; there are 'cached' and 'recompute'")
        elif left is None:
            raise _refused("keys and values cannot be kept without end: give left_context_s, or 'recompute'")
        else:
            self._pass = CachedPass(encoder.model, new=new, edge=edge, left=left)
        self.encoder_id = encoder.encoder_id
        self.dim = encoder.dim

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of the frames that became final, in order, shape (n, dim), often (0, dim).

        Args:
            samples: shape (n,), any length, in [-1, 1]; the next ones of the stream.

        Raises:
            InputError: not one channel, or not all finite; nothing was taken in.
        """
        samples = check_sound(samples)
        found = [self._step(block, last=False) for block in self._steps.push(samples)]
        return self._joined(found)

    def flush(self) -> NDArray[np.float32]:
        """Features of the frames that are left, shape (n, dim), at the end of a stream or before a gap.

        The stream ends here: what is pushed next is another one, as after `reset`.
        """
        found = [self._step(self._steps.rest(), last=True)]
        self.reset()
        return self._joined(found)

    def reset(self) -> None:
        """Forget the audio so far and its level: the next sample pushed is sample 0."""
        self._steps.reset()
        self._front.reset()
        self._pass.reset()

    def _step(self, samples: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            frames = self._front.step(samples)
            hidden = self._pass.step(frames, last=last)
            found: NDArray[np.float32] = self._encoder.with_affect(hidden).cpu().numpy()
        return found

    def _joined(self, found: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate((np.empty((0, self.dim), np.float32), *found))


class SlidingWav2vec:
    """The oracle, live: at each hop, one whole pass over the last 12 s. Slow, and what the papers do.

    Each answer is `Wav2vecEncoder.encode` of just that sound, normalised by itself, and replaces the answers
    before it. Steps are on the grid of `StreamingWav2vec`.
    """

    def __init__(self, encoder: Wav2vecEncoder, *, hop_s: float = 0.5) -> None:
        """Share `encoder`; `hop_s` in seconds, a whole number of frames of 20 ms.

        Raises:
            InputError: it is not.
        """
        self._encoder = encoder
        self._steps = _Steps(_frames("hop_s", hop_s, least=1) * HOP_SAMPLES)
        self.encoder_id = encoder.encoder_id
        self.dim = encoder.dim
        self.reset()

    def push(self, samples: NDArray[np.float32]) -> WindowFrames | None:
        """The last 12 s, when a hop is complete; a push of several hops is answered for the last of them.

        Raises:
            InputError: not one channel, or not all finite; nothing was taken in.
        """
        samples = check_sound(samples)
        stepped = False
        for block in self._steps.push(samples):
            self._take(block)
            stepped = True
        return self._window() if stepped else None

    def flush(self) -> WindowFrames | None:
        """The last 12 s with what came since the last hop, if anything did; the stream ends here."""
        rest = self._steps.rest()
        more = rest.size > (OVERLAP_SAMPLES if self._samples.size else 0)
        self._take(rest)
        window = self._window() if more and frames_for(self._samples.size) else None
        self.reset()
        return window

    def reset(self) -> None:
        """Forget the audio so far: the next sample pushed is sample 0."""
        self._steps.reset()
        self._samples = np.empty(0, np.float32)  # from the start of a frame on
        self._first = 0  # the number of that frame

    def _take(self, block: NDArray[np.float32]) -> None:
        fresh = block[OVERLAP_SAMPLES:] if self._samples.size else block
        samples = np.concatenate((self._samples, fresh))
        gone = max(0, frames_for(samples.size) - PIECE_FRAMES)
        self._first += gone
        self._samples = samples[gone * HOP_SAMPLES :]

    def _window(self) -> WindowFrames:
        return WindowFrames(self._first, self._encoder.encode(self._samples))


class _Steps:
    """Cuts a stream into blocks of a hop and 80 samples, each sharing 80 with the one before it."""

    def __init__(self, hop_samples: int) -> None:
        self._hop = hop_samples
        self._pending = np.empty(hop_samples + OVERLAP_SAMPLES, np.float32)
        self._filled = 0

    def reset(self) -> None:
        self._filled = 0

    def push(self, samples: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
        """The blocks that these samples complete; each is valid until the next is asked for."""
        while samples.size:
            room = self._pending.size - self._filled
            taken = samples[:room]
            self._pending[self._filled : self._filled + taken.size] = taken
            self._filled += taken.size
            samples = samples[room:]
            if self._filled == self._pending.size:
                yield self._pending
                self._pending[:OVERLAP_SAMPLES] = self._pending[self._hop :]
                self._filled = OVERLAP_SAMPLES

    def rest(self) -> NDArray[np.float32]:
        """What is not in a block, behind the 80 samples before it."""
        return self._pending[: self._filled]


def _spans(new: int) -> int:
    """How many steps make up the 12 s that the papers' clips last."""
    return max(1, round(PIECE_SAMPLES / (new * HOP_SAMPLES)))


def _frames(name: str, seconds: float | None, least: int = 0) -> int:
    exact = (math.nan if seconds is None else seconds) * RATE_HZ / HOP_SAMPLES
    frames = round(exact) if math.isfinite(exact) else -1
    if frames < least or abs(exact - frames) > 1e-6:
        raise _refused(
            f"{name} is {seconds} s; it must be a whole number of frames of 20 ms, "
            f"{least * HOP_SAMPLES / RATE_HZ:g} s or more"
        )
    return frames


def _refused(why: str) -> Exception:
    from emi_models.inputs import InputError

    return InputError(why)


# What a step shares with the one before it, after the first convolution.
OVERLAP_COLUMNS: Final = (OVERLAP_SAMPLES - KERNELS[0]) // STRIDES[0] + 1


class Wav2vecFront:
    """Turns steps of sound into frames as the transformer takes them, shape (n, hidden size).

    The convolutions pad nothing and step by 320 samples in all, so a run of 320n + 80 samples gives just
    its n frames: with 80 samples of overlap nothing is computed twice but those, and the frames are those
    of a whole pass, to rounding.

    Two statistics over a whole clip cannot be had of a stream; here they are of the last 12 s up to and
    with the step, on the grid of steps, which is what a pass over the last 12 s would use at that instant:

    - the mean and variance of the samples, where the model takes normalised sound;
    - where the first layer has GroupNorm over time (wav2vec 2.0 base, HuBERT base), the mean and variance of
      each of its channels. Per-layer LayerNorm (the large models) looks at one frame and needs nothing.

    Exact for the first step. Later ones are normalised differently from a pass over the whole clip, the
    less the longer the stream is; frames that were given out are not touched again.
    """

    def __init__(self, encoder: Wav2vecEncoder, spans: int) -> None:
        """Share the encoder's weights; `spans` steps make up 12 s."""
        self._model = encoder.model
        self._normalises = encoder.normalises
        self._spans = spans
        self.reset()

    def reset(self) -> None:
        """Forget the sound and its statistics."""
        self._started = False
        self._level = RunningMoments(self._spans)
        self._channels = RunningMoments(self._spans)

    def step(self, samples: NDArray[np.float32]) -> Tensor:
        """The frames of these samples, shape (frames_for(n), hidden size).

        Args:
            samples: shape (n,); but for the first step's, the first 80 are the last 80 of the step before.
        """
        scale, offset = self._level_with(samples)
        device = next(self._model.parameters()).device
        if not frames_for(samples.size):
            return torch.empty(0, self._model.config.hidden_size, device=device)
        taken = scale * (samples.astype(np.float64) - offset) if self._normalises else samples
        sound = torch.tensor(taken, dtype=torch.float32, device=device)[None, None]  # (1, 1, n)
        first, *layers = self._model.feature_extractor.conv_layers
        if isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm):
            states = self._by_channel(first, sound, scale, offset)
        else:
            states = first(sound)
        for layer in layers:
            states = layer(states)
        self._started = True
        projected = self._model.feature_projection(states.transpose(1, 2))
        frames: Tensor = projected[0] if isinstance(projected, tuple) else projected  # HuBERT gives one
        return frames[0]

    def _level_with(self, samples: NDArray[np.float32]) -> tuple[float, float]:
        """Scale and offset of the stream with these samples: they are taken as scale * (samples - offset)."""
        fresh = samples[OVERLAP_SAMPLES if self._started else 0 :]
        if not self._normalises or (fresh.size == 0 and not self._started):
            return 1.0, 0.0
        self._level.add(fresh[None])
        mean, variance = self._level.moments()
        return float(1.0 / np.sqrt(variance[0] + VARIANCE_FLOOR)), float(mean[0])

    def _by_channel(self, layer: Any, sound: Tensor, scale: float, offset: float) -> Tensor:
        """The layer with GroupNorm over time, with the stream's statistics in place of the clip's.

        They are of the convolution of the samples as they came: what came at another level counts as
        if it had come at this one.
        """
        states = layer.conv(sound)  # (1, channels, columns)
        weight, bias = layer.conv.weight.double(), layer.conv.bias
        shift = -scale * offset * weight.sum(dim=(1, 2))  # (channels,), what the offset and the bias add
        shift = (shift if bias is None else shift + bias).cpu().numpy()
        fresh = states[0, :, OVERLAP_COLUMNS if self._started else 0 :].double().cpu().numpy()
        self._channels.add((fresh - shift[:, None]) / scale)
        raw_mean, raw_variance = self._channels.moments()
        mean, variance = scale * raw_mean + shift, scale * scale * raw_variance
        norm = layer.layer_norm
        by = torch.from_numpy(1.0 / np.sqrt(variance + norm.eps)).to(states) * norm.weight
        normal = (states - torch.from_numpy(mean).to(states)[:, None]) * by[:, None] + norm.bias[:, None]
        activated: Tensor = layer.activation(normal)
        return activated


class Pass(Protocol):
    """What turns the projected frames of a step into the hidden states that became final."""

    def reset(self) -> None:
        """Forget all frames."""

    def step(self, frames: Tensor, *, last: bool) -> Tensor:
        """Hidden states of the frames that became final, in order, shape (n, hidden size).

        Args:
            frames: the step's new ones, shape (new, hidden size); fewer only in the last step.
            last: no frame will come, so all become final.
        """


class CachedPass:
    """Each step computes its new frames and the edge; old ones are keys and values that were kept.

    A kept key is that of its frame's last pass: it knew at most the `edge` + `new` frames after it. That is
    all that differs from a pass over the same frames at once.
    """

    def __init__(self, model: Any, *, new: int, edge: int, left: int) -> None:
        self.layers = CachedLayers(model, new=new, edge=edge, left=left)
        self._places = torch.arange(self.layers.slots, device=self.layers.behind.device)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self.layers.reset()
        self._count = 0  # of frames before this step

    def step(self, frames: Tensor, *, last: bool) -> Tensor:
        """As `Pass.step`."""
        layers = self.layers
        found = len(frames)
        edge = min(layers.edge, self._count)
        if found + edge == 0:
            return frames
        # Absent slots are zero, which is what the convolution for positions must see there.
        padded = torch.nn.functional.pad(frames, (0, 0, 0, layers.new - found))
        start = layers.slots - layers.new  # the slot of the first new frame
        present = (self._places >= start - self._count) & (self._places < start + found)
        states = layers(padded, present)
        self._count += found
        final: Tensor = states[layers.edge - edge : (layers.edge + found if last else layers.new)]
        return final


class RecomputedPass:
    """Each step passes left context, open and new frames through the model's own transformer.

    At `left` None the context is all audio so far, and work grows with its square. Where the context is cut
    the convolution for positions sees zeros before it.
    """

    def __init__(self, model: Any, *, edge: int, left: int | None) -> None:
        self._encoder = model.encoder
        self._edge, self._left = edge, left
        weight = self._encoder.layer_norm.weight
        self._none: Tensor = weight.new_zeros(0, model.config.hidden_size)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._frames = self._none  # context, then those that are not final
        self._context = 0

    def step(self, frames: Tensor, *, last: bool) -> Tensor:
        """As `Pass.step`."""
        self._frames = torch.cat((self._frames, frames))
        done = max(self._context, len(self._frames) - (0 if last else self._edge))
        if done == self._context:
            return self._none
        states = self._encoder(self._frames[None]).last_hidden_state[0]
        final: Tensor = states[self._context : done]
        kept = done if self._left is None else min(done, self._left)
        self._frames = self._frames[done - kept :].clone()
        self._context = kept
        return final
