"""`emi bench fusion`: how fast each engine turns windows into intensities, and how far that is from a floor.

::

    settings ─ networks (checkpoints and windows) ─┐
               engines (what can run here) ────────┴─ run (cases, in turns: timing) ─ report

Runs with torch, numpy and safetensors alone: `python -m emi_bench.fusion` on a bare GPU machine. Nothing here
imports `emi_live`.
"""
