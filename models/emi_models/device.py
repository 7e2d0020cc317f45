"""What PyTorch computes on and how exactly: the device and the precision, as asked for or as there is."""

from __future__ import annotations

import os
import re
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_models.errors import TrainingError

if TYPE_CHECKING:
    import torch

__all__ = ["choose_device", "choose_precision", "gpus_here", "on_device"]

LIGHTNING: Final = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
GPU: Final = re.compile(r"\d+|(GPU|MIG)-.+")
NVIDIA: Final = Path("/dev")  # where its driver shows a file for each GPU


def choose_device(asked: str) -> torch.device:
    """The device to compute on; `auto` is a GPU if there is one.

    Raises:
        TrainingError: it is not there, or is none of auto, cpu, cuda and cuda:N.
    """
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", asked):
        raise TrainingError(f"no device is called {asked!r}; choose auto, cpu, cuda or cuda:N")
    device = torch.device(asked)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f"{asked} is not there: PyTorch sees {torch.cuda.device_count()} GPUs; choose cpu, or auto"
        )
    return device


def choose_precision(asked: str, device: torch.device) -> str:
    """Lightning's name for the precision; `auto` is fp32 on the CPU, bf16 on a GPU that has it, else fp16.

    Raises:
        TrainingError: half precision with 16-bit floats was asked for on the CPU.
    """
    import torch

    if asked == "fp16" and device.type == "cpu":
        raise TrainingError("the CPU does not train in fp16; leave training.precision out, or choose bf16")
    if asked == "auto":
        if device.type == "cpu":
            asked = "fp32"
        else:
            asked = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return LIGHTNING[asked]


def on_device(model: Any, device: torch.device) -> Any:
    """The model on the device, where float32 is to mean float32.

    By default cuDNN rounds the inputs of convolutions to 10 bits (TF32); the features of one clip would then
    differ between a GPU and a CPU by a thousand times more than by rounding.
    """
    if device.type == "cuda":
        import torch

        torch.backends.cudnn.allow_tf32 = False
    return model.to(device)


def gpus_here() -> int:
    """How many GPUs of NVIDIA this machine has, without importing PyTorch; those that are hidden are none."""
    there = len(list(NVIDIA.glob("nvidia[0-9]*"))) or int((NVIDIA / "dxg").exists())  # the latter: WSL
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return there
    # As CUDA reads it: what stands behind the first name that is none is hidden too.
    named = takewhile(GPU.fullmatch, (one.strip() for one in shown.split(",")))
    return min(there, len(list(named)))
