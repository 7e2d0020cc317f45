"""`emi bench live`: how fresh the estimates are, from capture to a sink, by the whole engine."""
