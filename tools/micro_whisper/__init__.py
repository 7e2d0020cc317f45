"""Trains a Whisper that is small enough for a test file and recognises the words of synthetic speech.

::

    emi_bench.speech.synthetic ─ clips ─ examples ─ training ─ evaluation
                                            network ───┘

`python -m tools.micro_whisper --out FOLDER`, in the repository's root, makes the folder that
`tests/data/micro-whisper` holds; faster-whisper loads it like any other model.
"""
