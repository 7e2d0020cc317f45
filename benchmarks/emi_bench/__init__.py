"""Benchmarks of emi-live: each answers one question, on your machine, with n and versions beside it."""

import emi_models  # noqa: F401 # before any library: it tells them to send nothing home
