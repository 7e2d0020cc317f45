"""Networks, encoders, checkpoints and their training. Knows no devices, threads or clocks; importing it is cheap."""
