"""The root of every error emi-live raises, and those of its networks and checkpoints.

::

    EmiError
    ├── CheckpointError          a checkpoint cannot be used as asked
    ├── ModelUnavailableError    an encoder's weights are not on this machine
    ├── ModelIntegrityError      a weight file is not the one that was pinned
    ├── MissingPackageError      a package of an extra is not installed
    ├── InputError               an array does not fit a network or encoder (emi_models.inputs)
    ├── DataError                training data are not as they must be      (emi_models.errors)
    ├── TrainingError            it cannot be trained or scored as asked    (emi_models.errors)
    ├── UnreadablePictureError   a picture file cannot be decoded           (emi_models.encoders.vit)
    └── RecognizerLostError      the recogniser's process has ended         (emi_models.speech.isolated)

`emi_engine.protocol` and `emi_live.errors` add their own branches below `EmiError`.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DataError",
    "EmiError",
    "MissingPackageError",
    "ModelIntegrityError",
    "ModelUnavailableError",
    "TrainingError",
]


class EmiError(Exception):
    """Anything emi-live reports to its user: one line that names the cause and the remedy."""


class CheckpointError(EmiError, ValueError):
    """A checkpoint is damaged, or belongs to other encoders than the ones running."""


class ModelUnavailableError(EmiError, FileNotFoundError):
    """An encoder's weights are not on this machine and may not, or could not, be fetched."""


class ModelIntegrityError(EmiError, ValueError):
    """A weight file's bytes are not those that were pinned."""


class MissingPackageError(EmiError, ImportError):
    """What was asked for needs a package that the base of emi-live does not bring."""


class DataError(EmiError, ValueError):
    """Training data are not there, or are not in the form that their publisher gives them."""


class TrainingError(EmiError, ValueError):
    """A training or an evaluation cannot be done as asked, or with these clips."""
