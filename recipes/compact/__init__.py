"""The recipe of the packaged `compact` checkpoint: TAEMI on words and faces people rated, and on prototypes.

    python -m recipes.compact --assets DIR --out compact.safetensors --figures docs/benchmarks

Words are learned from GoEmotions, which people rated, faces from the votes of FER+ and from displays that the
literature describes (`prototypes`). Scores of voices are fitted to EmoDB and to synthesised sound. No picture
and no recording of a person is in the checkpoint.
"""

from typing import Final

__all__ = ["VERSION"]

VERSION: Final = 5  # of the packaged checkpoint, as its card says; the figures name it
