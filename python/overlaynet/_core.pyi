"""The compiled core of overlaynet: conversions between Python values and the Rust crates.

Wherever a buffer is taken, any object with the buffer protocol will do. A `bytes` object is read in place; any other is copied
first, since it may change. Layers are known by name: ethernet, ipv4, ipv6, udp, tcp, icmp, icmpv6, vxlan.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer

_T = TypeVar("_T")
_D = TypeVar("_D")
_Prefix: TypeAlias = str | IPv4Network | IPv6Network
_Address: TypeAlias = str | bytes | IPv4Address | IPv6Address
_Fields: TypeAlias = tuple[Any, ...]

@final
class PrefixTable(Generic[_T]):
    """A map from IP prefixes of one family to objects, with longest-prefix match.

    Prefixes are texts or networks of `ipaddress`, addresses texts, addresses of `ipaddress` or bytes in network order; prefixes
    come back as texts. PrefixError says that a value is not one of the family, TypeError that it is nothing of the kind. Safe
    for use by several threads.
    """

    def __new__(cls, family: Literal[4, 6], /) -> PrefixTable[_T]: ...
    @property
    def family(self) -> Literal[4, 6]:
        """The IP version of the table's prefixes: 4 or 6."""

    def __len__(self) -> int: ...
    def __contains__(self, key: object, /) -> bool: ...
    def insert(self, prefix: _Prefix, value: _T, /) -> _T | None:
        """The value that `prefix` had before, or None; it now has `value`."""

    @overload
    def remove(self, prefix: _Prefix, /) -> _T | None: ...
    @overload
    def remove(self, prefix: _Prefix, default: _D, /) -> _T | _D:
        """The value of exactly `prefix`, which is no longer in the table; `default` if it was not."""

    @overload
    def get(self, prefix: _Prefix, /) -> _T | None: ...
    @overload
    def get(self, prefix: _Prefix, default: _D, /) -> _T | _D:
        """The value of exactly `prefix`, or `default`."""

    def lookup(self, address: _Address, /) -> tuple[str, _T] | None:
        """The longest prefix that holds `address` and its value, or None."""

    def covering(self, prefix: _Prefix, /) -> list[tuple[str, _T]]:
        """The entries whose prefixes cover `prefix`, the shortest first."""

    def covered(self, prefix: _Prefix, /) -> list[tuple[str, _T]]:
        """The entries whose prefixes `prefix` covers, in order."""

    def overlaps(self, prefix: _Prefix, /) -> bool:
        """Whether an address lies both in `prefix` and in a prefix of the table."""

    def prefixes(self) -> list[str]:
        """All prefixes, ordered by address, then by length."""

    def items(self) -> list[tuple[str, _T]]:
        """All entries, ordered by address, then by length."""

    def clear(self) -> None:
        """Removes every prefix."""

def decode(
    buffer: Buffer, /, first: str = "ethernet", *, tunnels: bool = True
) -> tuple[list[tuple[str, int, int, str, _Fields]], int, int]:
    """The headers of the packet in `buffer`, the outermost first, and where its payload lies.

    A header is (layer, offset, length, checksum, fields): bytes count from the start of the buffer, length includes options, and
    the checksum is right, wrong, absent or unknown. `first` may also be ip, which is IPv4 or IPv6. Fields:
    ethernet (destination, source, ether_type); ipv4 (source, destination, protocol, ttl, tos, identification, dont_fragment,
    more_fragments, fragment_offset, options); ipv6 (source, destination, next_header, hop_limit, traffic_class, flow_label,
    extensions); udp (source_port, destination_port, has a checksum); tcp (source_port, destination_port, sequence,
    acknowledgement, flags, window, urgent, options); icmp and icmpv6 (type, code, rest); vxlan (vni).
    Bytes that are not the announced header raise DecodeError.
    """

def encode(headers: Iterable[tuple[str, _Fields]], payload: Buffer, /) -> bytes:
    """The packet of `headers` around `payload`, with all lengths and checksums filled in.

    ValueError says which field has no room for its value, or which layer for its length.
    """

def pretty(buffer: Buffer, /, first: str = "ethernet") -> str:
    """The packet in `buffer` as text, one line a header; a fault is the last line."""

def decode_many(frames: Iterable[Buffer], /, first: str = "ethernet", *, tunnels: bool = True) -> dict[str, tuple[str, bytes]]:
    """Columns about the packets in `frames`: name, then `struct` format and native-endian values, one a packet.

    Nothing raises DecodeError: the column `fault` is 0, or 1 truncated, 2 wrong version, 3 wrong length, 4 required flag not set,
    and the other columns tell what came before. Addresses, version, protocol and ports are the innermost IP header's; a missing
    VNI is -1.
    """

def decode_array(
    buffer: Buffer, stride: int, /, first: str = "ethernet", *, tunnels: bool = True
) -> dict[str, tuple[str, bytes]]:
    """The same as `decode_many`, for packets in one buffer, in slots of `stride` bytes each."""

def encode_many(headers: Iterable[tuple[str, _Fields]], payloads: Iterable[Buffer], /) -> list[bytes]:
    """One packet for each of `payloads`, all with the same headers; lengths and checksums are each packet's own."""

def netlink_pack(requests: list[tuple[int, int, _Fields]], sequence: int, /) -> bytes:
    """One buffer with a message for each of `requests`, numbered upwards from `sequence`; the last asks for an acknowledgement.

    A request is its kind (RTM_NEWROUTE, RTM_DELNEIGH, ...), its flags besides NLM_F_REQUEST, and the fields:

    - of a route destination, length, table, protocol, scope, type, flags, link, gateway, metric, source, next hop;
    - of a neighbour or FDB entry family, link, state, flags, destination, MAC address;
    - of a next hop id, family, protocol, flags, link, gateway.

    Addresses are packed bytes or None, links and next hops numbers or 0. ValueError: a field is not of its kind.
    """

def netlink_dump(kind: int, sequence: int, body: bytes, /) -> bytes:
    """The request for a table: `kind` is that of the request, `body` the structure's fields and the attributes that filter."""

def netlink_dumped(part: Buffer, sequence: int, /) -> tuple[list[_Fields], bool, tuple[int, str] | None]:
    """From a part of a dump: what was found, whether a change disturbed it, and, if this is its end, errno and words.

    Fields are as `netlink_pack` takes them; those of routes and next hops have one more, which says that there is more to it
    than one gateway of the family.
    """

def netlink_answers(part: Buffer, /) -> list[tuple[int, int, str]]:
    """The errors and acknowledgements in `part`: the request's number, errno (0 for none) and the kernel's words."""

def netlink_events(part: Buffer, own: Sequence[int], /) -> list[tuple[int, int, _Fields | bytes]]:
    """The events in `part` that no socket of `own` caused: kind, port, and fields, or for other kinds the bytes of the body."""

class Pump:
    """The packet engine of the `udp` backend: a TUN device, a UDP socket, and one thread between them.

    Made but not started, it holds its device and socket. Tables may be exchanged at any time, from any thread.
    """

    def __new__(cls, *, tun: str, bind: tuple[str, int], mtu: int, offloads: Sequence[str]) -> Self:
        """Attach to the TUN device `tun`, which exists, and bind the UDP socket; `mtu` is the device's, in bytes.

        `offloads` are those that may be used: `tso`, `uso`, `gso`, `gro`, `batch`, `poll`. DataplaneError: the device or the
        address cannot be had, or there is no such offload.
        """

    def configure(
        self, *, local: Sequence[str], addresses: Sequence[str], peers: Sequence[tuple[Sequence[str], str, int]]
    ) -> None:
        """Exchange the tables in one step.

        `local` are this host's subnets, `addresses` its own in the overlay (the sources of its ICMP errors), `peers` each peer's
        subnets, public address and port. Peers that stay keep their counters. DataplaneError: a text is no address or prefix.
        """

    def start(self) -> None:
        """Start the thread; nothing happens if it was started before."""

    def stop(self) -> None:
        """Stop the thread and wait for its end, some microseconds. Device and socket are closed; it cannot be started again."""

    @property
    def running(self) -> bool:
        """Whether the thread runs."""

    @property
    def failure(self) -> str | None:
        """Why the thread ended by itself, or None."""

    def counters(self) -> dict[str, Any]:
        """Packets and bytes (`tx_packets`, `tx_bytes`, `rx_packets`, `rx_bytes`), `drops` by reason, and the same for each of
        `peers` by public address. Bytes are those of inner packets.
        """

    def offloads(self) -> dict[str, str]:
        """How it stands with each offload: `on`, `off`, `missing: ` or `given up: ` with the system's reason."""

def flood(*, to: tuple[str, int], payload: int, seconds: float, most: int) -> int:
    """How many numbered datagrams of `payload` bytes the system took for `to`, sent as fast as it does, for so long or so many.

    DataplaneError, here and below: a text is no address, a time is none, or there is no socket to be had.
    """

def count(*, bind: tuple[str, int], patience: float, quiet: float) -> tuple[int, int, int, float]:
    """What of a flood arrives: datagrams, how many were sent by their numbers, how many came out of order, and the seconds from
    the first to the last. It ends after `quiet` seconds without any, or after `patience` without a first.
    """

def reflect(*, bind: tuple[str, int], quiet: float) -> int:
    """How many datagrams were sent back to where they came from, until none came for `quiet` seconds."""

def probe(*, to: tuple[str, int], payload: int, interval: float, probes: int, patience: float) -> list[float]:
    """Round-trip times in seconds to a reflector, of a datagram every `interval`. Without answer in `patience` one is missing."""
