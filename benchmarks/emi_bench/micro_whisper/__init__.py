"""A Whisper small enough to be a test file that truly recognises the words of synthetic speech.

::

    speech.synthetic ─ sound ─ clips ─ targets ─ batches ─ train ─ export ─ evaluate ─ card
                      (augment)                    │
                                network, losses ───┘

`python -m emi_bench.micro_whisper --out FOLDER` makes it; faster-whisper loads it like any other model.
"""
