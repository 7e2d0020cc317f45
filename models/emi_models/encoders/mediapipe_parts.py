"""MediaPipe without those of its parts that reach further than a face does.

Importing any of MediaPipe imports all of it: its sound tasks start PortAudio, which looks for a sound server
and writes in the home folder and in /dev/shm; its drawing helpers import pyplot, which writes a font cache.
Neither is of use here, so both wait until somebody asks for something in them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["import_mediapipe"]

PUT_OFF: Final = frozenset(
    {
        "mediapipe.tasks.python.audio",
        "mediapipe.tasks.python.vision.drawing_styles",
        "mediapipe.tasks.python.vision.drawing_utils",
    }
)


def import_mediapipe() -> ModuleType:
    """The module `mediapipe`; a part that was put off is imported when somebody first uses it."""
    if "mediapipe" not in sys.modules:
        finder = _StandIns()
        sys.meta_path.insert(0, finder)
        try:
            import_module("mediapipe")
        finally:
            sys.meta_path.remove(finder)
            for name in PUT_OFF:
                if isinstance(module := sys.modules.get(name), _StandIn):
                    module.opens = True
                    del sys.modules[name]  # an import of it from here on is a real one
    return sys.modules["mediapipe"]


class _StandIn(ModuleType):
    """A module that passes on what it is asked for to the real one, which the first question imports."""

    opens = False  # while MediaPipe itself is being imported, the import system alone looks at it

    def __getattr__(self, name: str) -> Any:
        if not self.opens:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(self.__name__), name)


class _StandIns(MetaPathFinder, Loader):
    """Finds and loads stand-ins in place of the parts that are put off."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A stand-in's spec, for the parts that are put off."""
        return ModuleSpec(name, self) if name in PUT_OFF else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the real module is imported later."""
