"""Benchmarks of emi-live: each answers one question, on your machine, with n and versions beside it."""
