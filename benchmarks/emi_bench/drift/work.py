"""Floating-point operations of a step and of a whole pass, counted without computing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from emi_bench.drift.report import Setting

__all__ = ["WorkCounter"]


class WorkCounter:
    """Counts what a model of the same shape would compute, on tensors that have a shape and no contents.

    Multiplications and additions of convolutions, matrix products and attention, as
    `torch.utils.flop_counter` counts them: a multiply-add is two.
    """

    def __init__(self, model: Any) -> None:
        import torch

        self._torch = torch
        with torch.device("meta"):
            self._model = type(model)(model.config).eval()

    def whole(self) -> float:
        """Of one pass over 12 s, in GFLOP."""
        from emi_models.encoders.wav2vec import PIECE_SAMPLES

        return self._count(lambda: self._model(self._torch.empty(1, PIECE_SAMPLES, device="meta")))

    def step(self, setting: Setting) -> float:
        """Of one step with its left context full, in GFLOP."""
        from emi_models.encoders.wav2vec import HOP_SAMPLES, OVERLAP_SAMPLES
        from emi_models.encoders.wav2vec_layers import CachedLayers

        torch = self._torch
        new, left, edge = setting.frames
        with torch.device("meta"):
            samples = torch.empty(1, new * HOP_SAMPLES + OVERLAP_SAMPLES)
            context = torch.empty(1, left + edge, self._model.config.hidden_size)

        def run() -> None:
            states = self._model.feature_extractor(samples).transpose(1, 2)
            projected = self._model.feature_projection(states)
            frames = projected[0] if isinstance(projected, tuple) else projected
            if setting.strategy == "recompute":
                self._model.encoder(torch.cat((context, frames), dim=1))
                return
            with torch.device("meta"):
                layers = CachedLayers(self._model, new=new, edge=edge, left=left)
                present = torch.ones(layers.slots, dtype=torch.bool)
            layers(frames[0], present)

        return self._count(run)

    def _count(self, run: Callable[[], object]) -> float:
        from torch.utils.flop_counter import FlopCounterMode

        with self._torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        return float(counter.get_total_flops()) / 1e9
