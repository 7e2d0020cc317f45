"""A bundle at work: which encoder of each modality can run on this machine, and in words why another cannot.

Nothing is substituted silently: every choice, and every absence, is one line of `announcements`.
"""

from emi_live.bundle.encoders import CropEncoder, Encoders, FaceReader
from emi_live.bundle.load import load_encoders
from emi_live.bundle.shared import load_face, load_speech

__all__ = [
    "CropEncoder",
    "Encoders",
    "FaceReader",
    "load_encoders",
    "load_face",
    "load_speech",
]
