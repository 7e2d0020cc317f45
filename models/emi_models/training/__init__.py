"""Training: from labelled data to a checkpoint, each recipe a module that runs with `python -m`."""
