"""Run a program as if some packages were not installed.

    python -m tests.support.absent NAMES emi-live|emi|FILE.py ARGS

NAMES are top-level modules, with commas between. They cannot be found, as in an environment without them:
`import` raises ModuleNotFoundError, and `importlib.util.find_spec` gives None.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def hide(names: frozenset[str]) -> None:
    """From now on, these modules are not found."""

    class Finder(PathFinder):
        @classmethod
        def find_spec(
            cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            if fullname.partition(".")[0] in names:
                return None
            return PathFinder.find_spec(fullname, path, target)

    if loaded := sorted(names & sys.modules.keys()):
        raise RuntimeError(f"{loaded} are loaded already")
    sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]


def main() -> None:
    """Hide, then run."""
    hidden, program, *arguments = sys.argv[1:]
    hide(frozenset(hidden.split(",")))
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
        return
    from emi_live.cli import start_emi, start_emi_live

    {"emi-live": start_emi_live, "emi": start_emi}[program]()


if __name__ == "__main__":
    main()
