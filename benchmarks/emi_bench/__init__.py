"""Benchmarks of emi-live: each answers one question on your machine, and states n and the versions.

A bench is a folder: `run.py` or `measure.py` measures, `report.py` is what it found. `cli.py` has all
options, `report_file.py` writes and reads the reports, `render.py` makes their pages and figures.
"""

import emi_models  # noqa: F401 # before any library: it tells them to send nothing home
