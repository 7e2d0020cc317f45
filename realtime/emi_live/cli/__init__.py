"""The command line: `emi-live` and `emi`."""
