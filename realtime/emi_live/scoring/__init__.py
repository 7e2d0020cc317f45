"""Scoring: recorded clips into tables, subtitles, annotations and pictures, by the engine that runs live."""
