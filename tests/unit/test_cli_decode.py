"""`overlaynet decode`: hexadecimal and captures in, text and JSON out, one line and a code for what cannot be read."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from overlaynet.packet import Ethernet, Icmp, Ipv4, Udp, Vxlan, encode

NEAR, FAR = "02:00:00:00:00:01", "02:00:00:00:00:02"
FRAME = encode(
    Ethernet(FAR, NEAR),
    Ipv4("172.16.0.1", "172.16.0.2"),
    Udp(4000, 8472, checksum=False),
    Vxlan(7),
    Ethernet(NEAR, FAR),
    Ipv4("10.1.1.2", "10.1.2.3"),
    Icmp(8, rest=b"\0\1\0\2"),
    payload=b"ping",
)
TEXT = """\
#1 96 bytes
  0 ethernet 02:00:00:00:00:01 > 02:00:00:00:00:02 type 0x0800
 14 ipv4 172.16.0.1 > 172.16.0.2 protocol 17 ttl 64 length 82 checksum right
 34 udp 4000 > 8472 length 62
 42 vxlan vni 7
 50 ethernet 02:00:00:00:00:02 > 02:00:00:00:00:01 type 0x0800
 64 ipv4 10.1.1.2 > 10.1.2.3 protocol 1 ttl 64 length 32 checksum right
 84 icmp echo request id 1 seq 2 checksum right
 92 payload 4 bytes
"""


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    program = "import sys; from overlaynet.cli.main import main; sys.argv[0] = 'overlaynet'; main()"
    done = subprocess.run([sys.executable, "-c", program, "decode", *arguments], input=stdin, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def capture(*frames: tuple[bytes, int], link_type: int = 1) -> bytes:
    """A capture of (bytes that were kept, length), a second apart."""
    file = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link_type)
    for second, (data, length) in enumerate(frames):
        file += struct.pack("<IIII", second, 500_000, len(data), length) + data
    return file


@pytest.mark.parametrize("text", [FRAME.hex(), FRAME.hex(":"), FRAME.hex(" ").upper(), f"0x{FRAME.hex()}"])
def test_hexadecimal_in_any_spelling(text: str) -> None:
    assert run(text) == (0, TEXT, "")
    assert run("-", stdin=f"{text}\n".encode()) == (0, TEXT, "")


def test_json_has_offsets_fields_and_verdicts() -> None:
    code, out, _ = run("--json", FRAME.hex())
    assert code == 0
    found = json.loads(out)
    assert [(layer["layer"], layer["offset"], layer["checksum"]) for layer in found["layers"]] == [
        ("ethernet", 0, "absent"),
        ("ipv4", 14, "right"),
        ("udp", 34, "absent"),
        ("vxlan", 42, "absent"),
        ("ethernet", 50, "absent"),
        ("ipv4", 64, "right"),
        ("icmp", 84, "right"),
    ]
    assert found["layers"][5]["source"] == "10.1.1.2"
    assert found["layers"][6]["rest"] == "00010002"
    assert (found["payload"], found["fault"]) == ({"offset": 92, "length": 4}, None)


def test_a_wrong_bit_and_a_fault_are_shown() -> None:
    wrong = bytearray(FRAME)
    wrong[-1] ^= 1
    wrong[64] = 0x65
    code, out, _ = run(wrong.hex())
    assert code == 0
    assert out.splitlines()[-1] == " 64 ! ipv4 at byte 64: wrong version: need 4, have 6"
    fault = json.loads(run("--json", wrong.hex())[1])["fault"]
    assert (fault["layer"], fault["offset"]) == ("ipv4", 64)
    assert "icmp" not in out
    wrong[64] = 0x45
    assert " 84 icmp echo request id 1 seq 2 checksum wrong" in run(wrong.hex())[1]


def test_tunnels_are_left_closed_on_request_and_the_first_header_is_chosen() -> None:
    assert run("--no-tunnels", FRAME.hex())[1].splitlines()[-1] == " 42 payload 54 bytes"
    assert run("--first", "ip", FRAME[14:].hex())[1].splitlines()[1].startswith("  0 ipv4 172.16.0.1")


def test_a_packet_of_which_only_the_start_was_kept(tmp_path: Path) -> None:
    file = tmp_path / "cut.pcap"
    file.write_bytes(capture((FRAME[:93], len(FRAME)), (FRAME[:60], len(FRAME))))
    code, out, _ = run(str(file))
    assert code == 0
    first, second = out.split("#2 ")
    assert first.splitlines()[0] == "#1 0.000000000 96 bytes, 93 captured"
    assert first.splitlines()[-1] == " 84 icmp echo request id 1 seq 2 checksum unknown"
    assert second.splitlines()[0] == "1.000000000 96 bytes, 60 captured"
    assert second.splitlines()[-1].startswith(" 42 vxlan")
    found = [json.loads(line) for line in run("--json", str(file))[1].splitlines()]
    assert [layer["checksum"] for layer in found[0]["layers"]][-2:] == ["right", "unknown"]
    assert [one["time_ns"] for one in found] == [500_000_000, 1_500_000_000]


def test_links_other_than_ethernet(tmp_path: Path) -> None:
    file = tmp_path / "sll2.pcap"
    file.write_bytes(capture((b"\x08\x00" + bytes(18) + FRAME[14:60], 66), link_type=276))
    lines = run(str(file))[1].splitlines()
    assert lines[1:3] == ["  0 sll2", " 20 ! ipv4 at byte 20: truncated: need 82, have 46"]
    file.write_bytes(capture((b"\x88\xcc" + bytes(18) + b"lldp", 24), link_type=276))
    assert run(str(file))[1].splitlines()[1:] == ["  0 sll2", " 20 payload 4 bytes"]
    file.write_bytes(capture((b"?", 1), link_type=147))
    assert run(str(file))[1].splitlines()[1:] == ["  0 ! link type 147: not known"]
    assert json.loads(run("--json", str(file))[1])["layers"] == []


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_damaged_file_gives_what_is_before_the_damage(tmp_path: Path, as_json: list[str]) -> None:
    file = tmp_path / "damaged.pcap"
    file.write_bytes(capture((FRAME, len(FRAME)), (FRAME, len(FRAME)))[:-1])
    code, out, error = run(*as_json, str(file))
    assert code == 11
    assert "10.1.2.3" in out
    assert ("#2" in out, '"number": 2' in out) == (False, False)
    assert error == f"overlaynet: {file}: damaged at byte 152: ends inside a packet: 95 of 96 bytes are there\n"
    assert run(*as_json, "-", stdin=file.read_bytes())[0] == 11


@pytest.mark.parametrize("source", ["no-such-file.pcap", "abc", "xyz", ""])
def test_what_is_neither_file_nor_hexadecimal_is_named(source: str) -> None:
    code, out, error = run(source)
    assert (code, out) == (2, "")
    assert error.startswith(f"overlaynet: FILE.pcap|HEX|-: {source!r}: ")
    assert error.count("\n") == 1


def test_a_text_that_is_no_hexadecimal_is_named(tmp_path: Path) -> None:
    code, _, error = run("-", stdin=b"abc def!")
    assert (code, error) == (
        2,
        "overlaynet: FILE.pcap|HEX|-: 'standard input': neither a capture nor hexadecimal digits in pairs\n",
    )
    file = tmp_path / "text"
    file.write_bytes(b"%PDF-1.4")
    assert run(str(file))[0] == 11
