"""How long does a packet take over the bus? Its own publisher, wire format and subscription, by transport."""
