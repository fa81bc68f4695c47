"""The packet engine of the udp backend, as the daemon drives it."""
