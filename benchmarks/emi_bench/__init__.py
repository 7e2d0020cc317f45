"""Benchmarks of emi-live: each answers one question on your machine, and states n and the versions.

`cli.py` and `cli_speech.py` have all commands and options; `harness.py` is what the benches share. Each bench
measures in the module or folder of its name; its report is `NAME_report.py`, or `report.py` in its folder.
`report.py` writes and reads the reports, `render.py` makes their pages and figures.
"""

import emi_models  # noqa: F401 # before any library: it tells them to send nothing home
