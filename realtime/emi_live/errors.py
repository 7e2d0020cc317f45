"""The errors of the live engine, and the exit code each one gives `emi-live`.

::

    EmiError                        (emi_models.errors)
    └── LiveError
        ├── ConfigurationError      exit 2: an option, preset or combination that cannot work
        ├── SourceError             exit 3: neither frames nor sound can be read from what was asked for
        │   └── PartialSourceError  exit 1: the source broke down before its end; what came of it is good
        ├── OverrunError            a reader asked for samples that were overwritten
        ├── StalledError            in exact mode, media was pushed and nobody consumed the estimates
        ├── StageError              a stage failed and could not be restarted
        └── WireError               bytes from the bus are not a packet of ours
"""

from __future__ import annotations

from typing import ClassVar

from emi_models.errors import EmiError

__all__ = [
    "ConfigurationError",
    "LiveError",
    "OverrunError",
    "PartialSourceError",
    "SourceError",
    "StageError",
    "StalledError",
    "WireError",
]


class LiveError(EmiError):
    """Anything that goes wrong between the sensor and the estimate."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(LiveError, ValueError):
    """An option, a preset or their combination cannot work."""

    exit_code = 2


class SourceError(LiveError, OSError):
    """Neither frames nor sound can be read from what was asked for."""

    exit_code = 3


class PartialSourceError(SourceError):
    """A source broke down before its end; the estimates of what could be read are good."""

    exit_code = 1


class OverrunError(LiveError, LookupError):
    """Part of the range asked for was overwritten by newer samples."""


class StalledError(LiveError, TimeoutError):
    """In exact mode, media was pushed but nobody consumed what came of it."""


class StageError(LiveError, RuntimeError):
    """A stage failed for good."""


class WireError(LiveError, ValueError):
    """Bytes from the bus are not a packet of ours: too large, malformed, or of another schema version."""
