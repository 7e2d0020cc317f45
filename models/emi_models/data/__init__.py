"""Training data: clips of features with their labels, whatever layout they are kept in."""
