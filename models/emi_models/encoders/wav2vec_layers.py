"""The transformer of wav2vec 2.0, HuBERT and WavLM over new frames, and keys and values kept of old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CachedLayers"]


class CachedLayers(nn.Module):
    """One step of the transformer, always of the same shapes.

    A step sees, in the order of time, `left` frames whose keys and values each layer has kept, `edge` frames
    that were new a step ago, and `new` ones. The last two, edge + new, are its queries. Behind it the first
    `new` of these are final and their keys and values kept; the last `edge` are queries once more.

    The convolution that tells positions sees as far back as its kernel reaches, whatever `left` is, and zeros
    beyond the last frame, as in a whole pass. WavLM's position bias depends on distances only, which are the
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
        attention = self.encoder.layers[0].attention  # the others have none of their own
        device = attention.rel_attn_embed.weight.device
        places = torch.arange(self.left + self.edge + self.new, device=device)
        distances = places[None, :] - places[self.left :, None]
        with torch.no_grad():
            buckets = attention._relative_positions_bucket(distances)
            bias: Tensor = attention.rel_attn_embed(buckets).permute(2, 0, 1).contiguous()
        return bias
