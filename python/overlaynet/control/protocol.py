"""The daemon's socket: one JSON object on one line as request, one as answer, then the connection ends.

Request: `{"request": "status"}`. Answer: `{"status": {...}}`, the fields of `model.status.Status`, or `{"error": "text"}`.
"""

from __future__ import annotations

import json
from typing import Any

SOCKET_NAME = "control.sock"
LONGEST_REQUEST_BYTES = 4_096
TIMEOUT_S = 5.0


def encode(message: dict[str, Any]) -> bytes:
    """One line of JSON."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The JSON object on one line. ValueError: it is none."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise TypeError("a message is a JSON object")
    return message
