"""The errors of the live engine, and the exit code each one gives `emi-live`.

::

    EmiError                        (emi_models.errors)
    └── LiveError
        ├── ConfigurationError      exit 2: an option, preset or combination that cannot work
        ├── SourceError             exit 3: neither frames nor sound can be read from the source
        │   └── PartialSourceError  exit 1: the source failed before its end; earlier estimates are valid
        ├── OverrunError            a reader asked for samples that were overwritten
        ├── StalledError            in exact mode, media was pushed and nobody took the estimates
        ├── StageError              a stage failed and could not be restarted
        └── WireError               bytes from the bus are not a valid packet
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
    """Neither frames nor sound can be read from the source."""

    exit_code = 3


class PartialSourceError(SourceError):
    """A source failed before its end; the estimates of what was read are valid."""

    exit_code = 1


class OverrunError(LiveError, LookupError):
    """Part of the requested range was overwritten by newer samples."""


class StalledError(LiveError, TimeoutError):
    """In exact mode, media was pushed but nobody took the estimates."""


class StageError(LiveError, RuntimeError):
    """A stage failed and could not be restarted."""


class WireError(LiveError, ValueError):
    """Bytes from the bus are not a valid packet: too large, malformed, or of another schema version."""
