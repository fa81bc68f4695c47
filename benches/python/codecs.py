"""The codecs against their peers, in ratios of one run: rounds of each are interleaved, and the best of each counts.

The frame is an outer IPv4 header, UDP without checksum, VXLAN, an Ethernet header and an inner IPv4 header around 86 bytes: 156
in all. A peer's unchecked reading stands against our checked one.
"""

from __future__ import annotations

import struct

import dpkt
import numpy
from overlaynet.lab.figures import Figure, at_least, at_most
from overlaynet.packet import Ethernet, Ipv4, Tunnel, Udp, Vxlan, decode, decode_many, encode
from scapy import all as scapy

from benches.python.timing import nanoseconds

NEAR, FAR = "02:00:00:00:00:01", "02:00:00:00:00:02"
LAYERS = (
    Ipv4("172.16.0.1", "172.16.0.2"),
    Udp(4000, 8472, checksum=False),
    Vxlan(7),
    Ethernet(FAR, NEAR),
    Ipv4("10.1.1.2", "10.1.2.3", 253),
)
PAYLOAD = bytes(range(86))
FRAME = encode(*LAYERS, payload=PAYLOAD)
FRAMES = 1024
FEW = 128  # so many frames and what is made of them fit into the first cache

# Version and header length, protocol, source, destination; UDP's ports; the VNI: seven numbers, at their places.
SEVEN = struct.Struct(">B8xB2xIIHH8xI")
ALL = struct.Struct(">BBHHHBBHIIHHHHIB3xI6s6sH")
NUMPY_FRAME = numpy.dtype(
    {
        "names": ["length", "protocol", "source", "destination", "vni"],
        "formats": [">u2", "u1", "V4", "V4", ">u4"],
        "offsets": [52, 59, 62, 66, 32],
        "itemsize": len(FRAME),
    }
)
NUMPY_FIELDS = numpy.dtype(
    {
        "names": [f"field{at}" for at in range(25)],
        "formats": [
            *("u1", "u1", ">u2", ">u2", ">u2", "u1", "u1", ">u2", ">u4", ">u4"),
            *(">u2", ">u2", ">u2", ">u2", "u1", ">u4", "V6", "V6", ">u2"),
            *("u1", ">u2", "u1", ">u2", ">u4", ">u4"),
        ],
        "offsets": [0, 1, 2, 4, 6, 8, 9, 10, 12, 16, 20, 22, 24, 26, 28, 32, 36, 42, 48, 50, 52, 59, 60, 62, 66],
        "itemsize": len(FRAME),
    }
)
HEADER = struct.Struct(">BBHHHBBHIIHHHHII6s6sHBBHHHBBHII")
HEADER_FIELDS = HEADER.unpack_from(FRAME)


def decode_dpkt() -> object:
    """The outer headers only: dpkt knows no VXLAN by itself; the inner frame is given to it by hand."""
    outer = dpkt.ip.IP(FRAME)
    inner = dpkt.ethernet.Ethernet(outer.data.data[8:])
    return inner.data.ttl


def decode_scapy() -> object:
    return scapy.IP(FRAME)[scapy.VXLAN][scapy.IP].ttl


def encode_dpkt() -> bytes:
    inner = dpkt.ip.IP(src=b"\n\1\1\2", dst=b"\n\1\2\3", p=253, data=PAYLOAD)
    inner.len += len(PAYLOAD)
    frame = dpkt.ethernet.Ethernet(src=b"\2\0\0\0\0\1", dst=b"\2\0\0\0\0\2", data=inner)
    udp = dpkt.udp.UDP(sport=4000, dport=8472, data=b"\x08\0\0\0\0\0\7\0" + bytes(frame))
    udp.ulen = len(udp)
    outer = dpkt.ip.IP(src=b"\xac\x10\0\1", dst=b"\xac\x10\0\2", p=17, data=udp)
    outer.len = len(outer)
    return bytes(outer)


def encode_scapy() -> bytes:
    inner = scapy.IP(src="10.1.1.2", dst="10.1.2.3", id=0, proto=253) / scapy.Raw(PAYLOAD)
    frame = scapy.Ether(src=NEAR, dst=FAR) / inner
    tunnel = scapy.UDP(sport=4000, dport=8472, chksum=0) / scapy.VXLAN(vni=7, flags=8) / frame
    return bytes(scapy.IP(src="172.16.0.1", dst="172.16.0.2", id=0) / tunnel)


def encode_struct() -> bytes:
    """All header fields at once, the checksums of a payload of this length known before."""
    return HEADER.pack(*HEADER_FIELDS) + PAYLOAD


def figures() -> list[Figure]:
    """The codecs' rows of the library's table."""
    tunnel = Tunnel(*LAYERS)
    frames, payloads = FRAME * FRAMES, PAYLOAD * FRAMES
    same = {tunnel.wrap(PAYLOAD), encode_scapy(), encode_struct()} == {FRAME}
    if not same or tunnel.wrap_many(payloads, stride=len(PAYLOAD)) != frames:
        raise RuntimeError("the peers do not write the same frame")

    def columns_numpy() -> object:
        """The columns that ours has, in this machine's numbers; no length, version, flag or checksum is looked at."""
        view = numpy.frombuffer(frames, NUMPY_FRAME)
        columns = {"vni": (view["vni"] >> 8).astype("i4"), "protocol": view["protocol"].copy()}
        for name in ("source_port", "destination_port"):
            columns[name] = numpy.zeros(FRAMES, "u2")
        for name in ("source", "destination"):
            columns[name] = numpy.zeros(FRAMES, "V16")
            columns[name].view("V4")[::4] = view[name]
        columns["payload_length"] = view["length"].astype("u4") - 20
        columns["payload_offset"] = numpy.full(FRAMES, 70, "u4")
        columns["version"] = numpy.full(FRAMES, 4, "u1")
        return columns

    def fields_numpy() -> object:
        """Every field of the headers as a column of its own, in this machine's numbers."""
        view = numpy.frombuffer(frames, NUMPY_FIELDS)
        return [view[name].astype(view[name].dtype.newbyteorder("=")) for name in NUMPY_FIELDS.names]

    ours, theirs = decode_many(frames, "ip", stride=len(FRAME)), columns_numpy()
    if any(numpy.asarray(ours[name]).tobytes() != column.tobytes() for name, column in theirs.items()):
        raise RuntimeError("numpy does not read the same columns")

    one = nanoseconds(
        {
            "ours": lambda: decode(FRAME, "ip").vni,
            "object": lambda: decode(FRAME, "ip"),
            "struct": lambda: SEVEN.unpack_from(FRAME),
            "struct all": lambda: ALL.unpack_from(FRAME),
            "dpkt": decode_dpkt,
            "scapy": decode_scapy,
        }
    )
    many = nanoseconds(
        {
            "ours": lambda: decode_many(frames, "ip", stride=len(FRAME)),
            "numpy": columns_numpy,
            "numpy all": fields_numpy,
            "dpkt": decode_dpkt,
        }
    )
    write = nanoseconds(
        {
            "ours": lambda: tunnel.wrap(PAYLOAD),
            "ours, layers": lambda: encode(*LAYERS, payload=PAYLOAD),
            "struct": encode_struct,
            "dpkt": encode_dpkt,
            "scapy": encode_scapy,
        }
    )
    few = payloads[: FEW * len(PAYLOAD)]
    batch = nanoseconds(
        {
            "ours": lambda: tunnel.wrap_many(few, stride=len(PAYLOAD)),
            "ours, many": lambda: tunnel.wrap_many(payloads, stride=len(PAYLOAD)),
            "dpkt": encode_dpkt,
        }
    )
    per_frame, per_row, per_packet = many["ours"] / FRAMES, many["numpy"] / FRAMES, batch["ours"] / FEW
    return [
        Figure("decode, object and one field", one["ours"], "ns"),
        Figure("decode, object", one["object"], "ns"),
        Figure("decode, struct with 7 fields", one["struct"], "ns"),
        Figure("decode, struct with 20 fields", one["struct all"], "ns"),
        Figure("decode: dpkt / ours", one["dpkt"] / one["ours"], "x", at_least(60)),
        Figure("decode: scapy / ours", one["scapy"] / one["ours"], "x", at_least(4000)),
        Figure("decode: ours / struct with 7 fields", one["ours"] / one["struct"], "x", at_most(0.85)),
        Figure(f"batch decode, every check, a frame of {FRAMES}", per_frame, "ns"),
        Figure("batch decode: dpkt / ours", many["dpkt"] / per_frame, "x", at_least(500)),
        Figure(
            "batch decode: numpy view of 25 fields without checks / ours",
            many["numpy all"] / FRAMES / per_frame,
            "x",
            at_least(2.3),
        ),
        Figure("batch decode: numpy view of our columns without checks / ours", per_row / per_frame, "x"),
        Figure("encode with payload", write["ours"], "ns"),
        Figure("encode with payload, layers given anew", write["ours, layers"], "ns"),
        Figure("encode: dpkt / ours", write["dpkt"] / write["ours"], "x", at_least(250)),
        Figure("encode: scapy / ours", write["scapy"] / write["ours"], "x", at_least(8000)),
        Figure("encode: ours / struct", write["ours"] / write["struct"], "x", at_most(0.35)),
        Figure(f"batch encode, a frame of {FEW}", per_packet, "ns"),
        Figure(f"batch encode, a frame of {FRAMES}", batch["ours, many"] / FRAMES, "ns"),
        Figure(f"batch encode: dpkt / ours, {FEW} frames", batch["dpkt"] / per_packet, "x", at_least(4500)),
    ]
