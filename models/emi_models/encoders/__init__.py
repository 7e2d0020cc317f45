"""Encoders: from frames, sound and words to the features that the networks take.

Each is pure: no thread, clock or device. Live use and offline extraction run the very same classes. A heavy
library is imported by the constructor that needs it, so importing this package costs nothing.
"""

from __future__ import annotations

from typing import Final

__all__ = ["COMPACT_ENCODERS", "TAEMI_ENCODERS"]

# The encoder id of each modality of the compact bundle, as its checkpoints name them.
COMPACT_ENCODERS: Final = {
    "vision": "mediapipe/face_landmarker@float16-1+pose",
    "audio": "emi-live/prosody-73@1",
    "text": "sentence-transformers/all-MiniLM-L6-v2",
}

# As the `taemi` bundle's checkpoints name them; vision is of upright crops as `crop_face` makes them.
TAEMI_ENCODERS: Final = {
    "vision": "google/vit-base-patch16-224-in21k",
    "audio": "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
    "text": "thenlper/gte-base",
}
