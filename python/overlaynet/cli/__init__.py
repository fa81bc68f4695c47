"""The command lines of overlaynet-daemon and overlaynet."""
