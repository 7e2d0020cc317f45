"""`emi bench fusion`: how fast each engine turns windows into intensities, and how far that is from a floor.

::

    settings ─ subjects (networks and windows) ─┐
               engines (what can run here) ─────┴─ cases ─ turns (timing) ─ report ─ page, JSON

Runs with torch, numpy and safetensors alone: `python -m emi_bench.fusion` on a bare GPU machine. Nothing here
imports `emi_live`.
"""
