"""The precisions that a compiled network may compute in, and how far each may stray from full precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["PRECISIONS", "TOLERANCES", "Precision", "torch_dtype"]

Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

# The largest difference of an intensity from PyTorch in fp32 with which an engine is still said to run its
# checkpoint. What fp16 and bf16 really cost is in docs/engines.md.
TOLERANCES: Final[Mapping[Precision, float]] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-3}


def torch_dtype(precision: Precision) -> torch.dtype:
    """PyTorch's type of that precision."""
    import torch  # here, so that the command line can name the precisions without loading it

    types: dict[Precision, torch.dtype] = {
        "fp32": torch.float32,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
    }
    return types[precision]
