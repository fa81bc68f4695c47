"""A folder over HTTP, inside a pod: `python -m overlaynet.lab.file_server ADDRESS PORT FOLDER`.

The standard library's server, but for one thing: it never asks a name server for its own name. A pod has none, and behind a
router each question would wait for an answer that never comes.
"""

from __future__ import annotations

import socket
import socketserver
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

SERVES = "serves"
"""What it prints once a client may connect."""


class _Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Bind, and take the address as the name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


def main(address: str, port: str, folder: str) -> None:
    """Serve the folder until the process is ended."""
    _Server.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _Server((address, int(port)), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        sys.stdout.write(f"{SERVES}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
