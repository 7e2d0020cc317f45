"""How fresh are the estimates? The whole engine at real pace, from capture to a sink, station by station."""
