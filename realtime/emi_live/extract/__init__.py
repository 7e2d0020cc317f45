"""Extraction: the features of whole clips, by the encoders and stages that run live, for training."""
