"""The last seconds of all three modalities as one input of the fusion network: packets in, windows out.

Pure: no thread, clock or socket, so the same packets give the same windows at every machine speed.
"""

from emi_live.window.assembler import Condition, Window, WindowAssembler

__all__ = ["Condition", "Window", "WindowAssembler"]
