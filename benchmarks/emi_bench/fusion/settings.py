"""What `emi bench fusion` is asked to do; the only defaults, whichever door it is entered by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from emi_models.errors import EmiError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NETWORKS", "FusionSettings", "SettingsError"]

NETWORKS: Final = ("compact", "compact-12s", "taemi")
QUICK_NETWORKS: Final = ("compact", "taemi")
Where = Literal["cpu", "cuda"]


class SettingsError(EmiError, ValueError):
    """Something is asked that cannot be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSettings:
    """Which engines on which windows, and how long to measure each.

    `engines` and `networks` empty: all. `n` timed calls of each engine and case are fewer where one turn of
    all engines is slow, so that a case takes about `budget_s` of work, gaps apart; the output says so.
    """

    engines: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    checkpoint: Path | None = None  # in place of the networks
    batches: tuple[int, ...] = (1, 4, 16, 64)
    n: int = 200
    gap_s: float = 0.2  # a hop of live use; 0 leaves the sparse cases out
    budget_s: float = 60.0
    parity_windows: int = 200
    device: Where | None = None  # None: both, where there are both
    torch_threads: int | None = None  # None: as PyTorch has it
    streams: bool = True  # also hop by hop, through sessions
    quick: bool = False

    def checked(self) -> FusionSettings:
        """These settings, with `quick` made plain.

        Raises:
            SettingsError: a value is impossible; the message names it.
        """
        for name, value, least in (
            ("--n", self.n, 10),
            ("--parity-windows", self.parity_windows, 1),
            ("--torch-threads", self.torch_threads or 1, 1),
            *(("--batch", batch, 1) for batch in self.batches),
        ):
            if value < least:
                raise SettingsError(f"{name} is {value}; it must be at least {least}")
        if not self.batches:
            raise SettingsError("no --batch; name at least one")
        if not math.isfinite(self.gap_s) or not 0.0 <= self.gap_s <= 10.0:
            raise SettingsError(f"--gap-s is {self.gap_s}; it must lie in [0, 10]")
        if not math.isfinite(self.budget_s) or self.budget_s <= 0:
            raise SettingsError(f"--budget-s is {self.budget_s}; it must be above 0")
        if unknown := [name for name in self.networks if name not in NETWORKS]:
            raise SettingsError(f"there is no network {unknown[0]!r}; choose of {', '.join(NETWORKS)}")
        if self.networks and self.checkpoint is not None:
            raise SettingsError("--network and --checkpoint exclude each other; leave one out")
        if not self.quick:
            return self
        few = tuple(batch for batch in self.batches if batch <= 4) or self.batches[:1]
        return replace(
            self,
            networks=self.networks or QUICK_NETWORKS,
            batches=few,
            n=min(self.n, 10),
            budget_s=min(self.budget_s, 2.0),
            parity_windows=min(self.parity_windows, 4),
        )
