"""What a training runs on: the device and the precision, as asked for or as there is."""

from __future__ import annotations

import re
from typing import Final

import torch

from emi_models.training.errors import TrainingError

__all__ = ["choose_device", "choose_precision"]

_LIGHTNING: Final = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def choose_device(asked: str) -> torch.device:
    """The device to compute on; `auto` is a GPU if there is one.

    Raises:
        TrainingError: it is not there, or is none of auto, cpu, cuda and cuda:N.
    """
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
    if asked == "fp16" and device.type == "cpu":
        raise TrainingError("the CPU does not train in fp16; leave training.precision out, or choose bf16")
    if asked == "auto":
        if device.type == "cpu":
            asked = "fp32"
        else:
            asked = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return _LIGHTNING[asked]
