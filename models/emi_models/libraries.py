"""Libraries of others: their telemetry is off, how ONNX Runtime runs, and which optional ones are installed.

Importing any of our packages imports this module, so the switches against telemetry are set before the first
library is imported. ONNX Runtime reads its switch at its own import. If a program imported it earlier, the
switch comes too late, and `telemetry_warnings` says so. Facts: docs/decisions/0017.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal

from emi_models.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from onnxruntime import SessionOptions

__all__ = [
    "EXPORT",
    "LATE",
    "SWITCHES",
    "Extra",
    "Switch",
    "cpu_options",
    "lacking",
    "mediapipe_release",
    "require",
    "switch_off",
    "telemetry_warnings",
]

ON: Final = frozenset({"1", "true", "yes", "on"})  # values that mean "do not send"; case does not matter
CHATTY_MEDIAPIPE: Final = (0, 10, 35)  # from this release on, MediaPipe opens a connection and has no switch


@dataclass(frozen=True, slots=True)
class Switch:
    """One environment variable that keeps a library from sending.

    Attributes:
        variable: its name; "1" means that nothing is sent.
        library: the library that reads it.
        module: the module whose import reads it; None = it is read whenever it matters.
        without: what the library does without it.
    """

    variable: str
    library: str
    module: str | None
    without: str

    def is_thrown(self, environ: Mapping[str, str]) -> bool:
        """Whether the library sends nothing."""
        return environ.get(self.variable, "").strip().lower() in ON


SWITCHES: Final = (
    Switch(
        "ORT_DISABLE_TELEMETRY",
        "onnxruntime",
        "onnxruntime",
        "from 1.29 on it connects to its maker by TLS and writes a device id in the cache folder",
    ),
    Switch(
        "HF_HUB_DISABLE_TELEMETRY",
        "huggingface_hub, transformers",
        "huggingface_hub",
        "it sends details of the session in the headers of every download from the hub",
    ),
    Switch("DO_NOT_TRACK", "libraries that follow donottrack.sh", None, "each decides what it sends"),
)


def switch_off(
    environ: MutableMapping[str, str] = os.environ, modules: Mapping[str, object] = sys.modules
) -> tuple[Switch, ...]:
    """Set every switch that the user has not set; a value that the user has set stays, even 0.

    An empty value counts as not set, because the libraries then send.

    Returns:
        The switches set too late, because their library was imported earlier. For such a library, its own
        API call is made, so that it sends nothing more.
    """
    late = tuple(switch for switch in SWITCHES if switch.module in modules and not switch.is_thrown(environ))
    for switch in SWITCHES:
        if not environ.get(switch.variable, "").strip():
            environ[switch.variable] = "1"
    for switch in late:
        if switch.is_thrown(environ):
            stop = getattr(modules[str(switch.module)], "disable_telemetry_events", None)
            if stop is not None:
                stop()
    return late


def telemetry_warnings(
    late: tuple[Switch, ...] | None = None, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """Data that may leave this machine against our promise: one line each, with the remedy; empty if none.

    Args:
        late: the result of `switch_off`; None = the one from the import of our first package.
        environ: the environment variables now.
    """
    lines = []
    for switch in SWITCHES:
        if not switch.is_thrown(environ):
            lines.append(
                f"privacy: {switch.variable}={environ.get(switch.variable, '')!r} lets {switch.library} send "
                "usage data: set it to 1, or unset it"
            )
        elif switch in (LATE if late is None else late):
            lines.append(
                f"privacy: {switch.library} was imported before emi_live and without {switch.variable}=1: it "
                "may have contacted its maker; import emi_live first, or set it before Python starts"
            )
    if (release := mediapipe_release()) is not None and _numbers(release) >= CHATTY_MEDIAPIPE:
        lines.append(
            f"privacy: mediapipe {release}, which only face.backend=mediapipe runs, contacts its maker and "
            "has no switch: pip install 'mediapipe<0.10.35'"
        )
    return lines


def mediapipe_release() -> str | None:
    """The installed release of MediaPipe; None without it."""
    from importlib.metadata import PackageNotFoundError, version  # imported here to keep our own import cheap

    try:
        return version("mediapipe")
    except PackageNotFoundError:
        return None


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:3] if part.isdecimal())


LATE: Final = switch_off()  # must run at import; later is too late


def cpu_options(threads: int = 1) -> SessionOptions:
    """How ONNX Runtime runs one of our networks on the CPU: in `threads` threads that do not spin.

    One of the threads is the caller's, so 1 starts none. Several networks run at the same time, each in the
    thread of its stage: docs/decisions/0028.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors reach the caller as exceptions
    # A thread without work sleeps: between two windows are 200 ms, in which others need the core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


Extra = Literal[
    "train", "taemi", "lora", "gpu", "mediapipe", "bench", "web", "webrtc", "score", "record", "all",
    "lsl", "osc", "mqtt", "ros2", "foxglove", "metrics", "rerun", "pipecat", "cluster",
]  # fmt: skip

EXPORT: Final = ("torch", "onnx", "onnxscript")  # what makes the ONNX of a checkpoint


def lacking(*packages: str, extra: Extra) -> str | None:
    """What of these packages is not installed, with the command that installs it; None if all are.

    No package is imported.
    """
    absent = [name for name in dict.fromkeys(packages) if not _found(name)]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} not installed: pip install 'emi-live[{extra}]'"


def require(*packages: str, extra: Extra, what: str) -> None:
    """Return if these packages are installed.

    Args:
        packages: names of top-level modules.
        extra: the extra of emi-live that brings all of them.
        what: what needs them, the subject of the error's sentence.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    if reason := lacking(*packages, extra=extra):
        raise MissingPackageError(f"{what} needs more than the base of emi-live: {reason}")


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # raised by an import hook that keeps a package out
        return False
