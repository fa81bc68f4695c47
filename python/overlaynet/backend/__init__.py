"""Backends: from network, own lease and peers to the desired kernel state; pure functions."""
