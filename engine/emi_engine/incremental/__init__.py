"""TAEMI over a stream, exactly: each hop computes what its new frames change, and nothing twice.

::

    StreamWindow ─ Sequence (vision, audio) ─ queried by the anchor ─ head ─ six intensities
                   │  Rows: what a frame's projection, query, key and value were, by frame number
                   └─ RunningSums: each frame's softmax over the keys in the window

Three things make it exact (docs/decisions/0011): no positions, so a frame's rows depend on that frame alone;
a single query, so key and value projections of the cross-attention fold into the query's side; and sums, so
self-attention changes by the keys that come and go.
"""

from emi_engine.incremental.engine import IncrementalEngine, pays

__all__ = ["IncrementalEngine", "pays"]
