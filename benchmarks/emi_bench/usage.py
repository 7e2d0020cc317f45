"""What this process and its children take of the machine."""

from __future__ import annotations

import psutil

__all__ = ["Usage"]


class Usage:
    """Memory and processor time of the process tree; children that have ended no longer count."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def rss_mib(self) -> float:
        """Resident memory now."""
        return float(sum(process.memory_info().rss for process in self._tree())) / 2**20

    def cpu_s(self) -> float:
        """Seconds of processor time so far."""
        times = [process.cpu_times() for process in self._tree()]
        return float(sum(time.user + time.system for time in times))

    def _tree(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]
