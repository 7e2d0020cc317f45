"""The recipe of the packaged `compact` checkpoint: TAEMI on words people rated, and on prototypes.

    python -m recipes.compact --assets DIR --out compact.safetensors

Words are learned from GoEmotions, which people rated. Faces and voices are learned from displays that the
literature describes (`prototypes`, `manners`): invented faces in the face encoder's features, and synthesised
sound heard by the real prosody encoder. No picture and no recording of a person is used.
"""
