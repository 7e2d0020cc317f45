"""Windows at addresses that never change: what compiled programs and captured graphs read and write."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from emi_models.inputs import FusionInputs
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_engine.tensorrt.device import Device
    from emi_models.inputs import FusionShapes

__all__ = ["BoundWindows"]


class BoundWindows:
    """A fixed number of windows and their intensities, where a program runs: on the GPU, or on the host.

    Fewer windows are filled up with rows in which nothing is present, more go in several runs: any batch
    gives the same numbers, and what it costs is decided by `batch`.

    Memory: all of it is owned here, from the making until it is dropped: `inputs` and `intensities` where the
    program runs, and for a GPU a pinned copy of each on the host. `run` copies the caller's window in and the
    result out, so that nothing of the caller's is read after it returns and what it returns is the caller's.
    """

    def __init__(self, shapes: FusionShapes, batch: int, device: Device | None = None) -> None:
        """Make the buffers, in which nothing is present; `device` None is the host's memory."""
        self.batch = batch
        self._device = device
        with torch.device("meta"):
            blank = FusionInputs.empty(shapes, batch)
        layouts = [(tuple(t.shape), t.dtype) for t in blank.tensors()]
        layouts.append(((batch, len(EMOTIONS)), torch.float32))
        if device is None:
            bound = staged = [torch.zeros(shape, dtype=dtype) for shape, dtype in layouts]
        else:
            bound = [device.buffer(*layout) for layout in layouts]
            staged = [device.staging(*layout) for layout in layouts]
        self.inputs = FusionInputs(*bound[:-1])
        self.intensities: Tensor = bound[-1]  # (batch, 6), written by the program
        self._staged_inputs = FusionInputs(*staged[:-1])
        self._staged_intensities: Tensor = staged[-1]

    def run(self, window: FusionInputs, launch: Callable[[], None]) -> NDArray[np.float32]:
        """Intensities (B, 6) of a window of B rows, each run of `launch` over `batch` of them."""
        results = np.empty((window.batch, len(EMOTIONS)), np.float32)
        for start in range(0, window.batch, self.batch):
            stop = min(start + self.batch, window.batch)
            self.fill(window, start, stop)
            launch()
            self._fetch()
            results[start:stop] = self._staged_intensities[: stop - start].numpy()
        return results

    def fill(self, window: FusionInputs, start: int = 0, stop: int | None = None) -> None:
        """Put rows [start, stop) into the inputs; in the rows behind them, nothing is present."""
        count = (window.batch if stop is None else stop) - start
        with nullcontext() if self._device is None else self._device.on_stream():
            for name in FusionInputs.names():
                staged, bound = getattr(self._staged_inputs, name), getattr(self.inputs, name)
                staged[:count] = getattr(window, name)[start : start + count]
                if is_flag := name.endswith("_present"):
                    staged[count:] = False
                if bound is not staged:  # what a row holds that is not present is never read: leave it
                    rows = self.batch if is_flag else count
                    bound[:rows].copy_(staged[:rows], non_blocking=True)

    def _fetch(self) -> None:
        """Wait for the intensities, and have them on the host."""
        if self._device is None:
            return
        with self._device.on_stream():
            self._staged_intensities.copy_(self.intensities, non_blocking=True)
        self._device.wait()
