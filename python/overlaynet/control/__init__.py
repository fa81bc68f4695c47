"""The daemon's socket: its protocol and a client, of the standard library only."""
