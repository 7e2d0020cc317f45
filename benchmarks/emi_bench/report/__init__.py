"""`emi bench report`: a table and a figure from the JSON files of any of the benchmarks.

::

    files ─ read ─┬─ markdown ─ one page     (fusion, live, bus, speech: each has its part)
                  └─ figure ─── one picture

Runs without what live use needs: `python -m emi_bench.report`; the figure needs matplotlib.
"""
