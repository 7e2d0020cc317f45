"""The demo: a scripted person, played through the real bus, window and fusion engine.

No camera, microphone, encoder or download is needed: faces are drawn from a script, and the sentence
embeddings of the scripted words and the prosody of a synthesised voice were recorded once with the real
encoders (`python -m emi_live.demo.record`).
"""

from emi_live.demo.stages import demo_stages

__all__ = ["demo_stages"]
