"""Stages: each turns a ring or a topic into packets of one topic."""

from emi_live.stages.stage import Stage

__all__ = ["Stage"]
