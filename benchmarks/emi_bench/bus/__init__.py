"""`emi bench bus`: how long a packet takes over the bus, by transport and size."""
