"""The values that all parts share: addresses, the network's configuration, leases, kernel objects. Frozen, and without I/O."""
