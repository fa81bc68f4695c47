"""A network of thousands of hosts in one process and in virtual time, with the daemon's own decisions."""
