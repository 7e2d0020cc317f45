"""Emotions for the frameworks of voice agents: one module each, imported by name and only when it is used."""
