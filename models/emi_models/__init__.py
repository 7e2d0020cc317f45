"""Networks, encoders, checkpoints and their training. Knows no device, thread or clock; cheap to import."""

import emi_models.telemetry  # noqa: F401 # before any library is imported, so that none sends anything home
