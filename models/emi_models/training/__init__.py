"""Training: from labelled data to a checkpoint, and the scores of a checkpoint."""
