"""Networks, encoders, checkpoints and their training. Knows no device, thread or clock; cheap to import."""
