"""More than one machine, by Ray (extra `cluster`); no command without `--cluster` imports this."""
