"""What a training changes in its process, and gives back."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities.warnings import PossibleUserWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emi_models.training.config import TrainingSettings

__all__ = ["own_state"]


@contextmanager
def own_state(settings: TrainingSettings, device: torch.device) -> Iterator[None]:
    """Random numbers, threads, warnings and log levels of the training's own; then the caller's again."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "GPU available: False", and the like
    devices = [device.index or 0] if device.type == "cuda" else []
    threads = torch.get_num_threads()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)  # few workers, few steps: both are meant
            # Lightning 2.6 on PyTorch 2.13, in every epoch; and with fp16 whenever a step is left out.
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)`")
            yield
    finally:
        logger.setLevel(level)
        torch.set_num_threads(threads)
