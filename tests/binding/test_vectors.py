"""The packets in tests/vectors decode to what is written beside them, and encode to the same bytes again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from overlaynet.packet import First, decode, encode

VECTORS = [
    line.split()
    for line in (Path(__file__).parents[1] / "vectors" / "packets.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("first", "layers", "payload", "text"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_packet_is_what_is_written_beside_it(first: str, layers: str, payload: str, text: str) -> None:
    frame = bytes.fromhex(text)
    packet = decode(frame, cast("First", first))
    marks = {"wrong": "!wrong", "unknown": "!unknown"}
    found = zip(packet.names, packet.checksums, strict=True)
    assert ",".join(name + marks.get(checksum, "") for name, checksum in found) == layers
    assert len(packet.payload) == int(payload)
    if "!" not in layers:
        written = encode(*packet.layers, payload=packet.payload)
        assert written == frame[: len(written)]
        assert decode(written, cast("First", first)).layers == packet.layers
