"""The compiled core of overlaynet: conversions between Python values and the Rust crates.

Wherever a buffer is taken, any object with the buffer protocol will do. A `bytes` object is read in place; any other may change
meanwhile, and is copied first, or where that is said, read in parts.
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, Sequence, ValuesView
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal, Self, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer

from overlaynet.errors import DecodeError

_T = TypeVar("_T")
_D = TypeVar("_D")
_Network: TypeAlias = IPv4Network | IPv6Network
_Prefix: TypeAlias = str | bytes | IPv4Network | IPv6Network
_Address: TypeAlias = str | bytes | int | IPv4Address | IPv6Address
_Key: TypeAlias = _Prefix | _Address
_Fields: TypeAlias = tuple[Any, ...]

@final
class PrefixTable(MutableMapping[_Network, _T]):
    """A mapping from IP prefixes of one family to objects, with longest-prefix match.

    Keys are prefixes or addresses:

    - A prefix is a text (`"10.1.0.0/16"`), a network of `ipaddress`, or packed: the address in network order, then a byte with
      the length, 5 or 17 bytes in all. It means exactly itself.
    - An address is a text (`"10.1.2.3"`), an address of `ipaddress`, packed (4 or 16 bytes), or a number. `table[address]` and
      `get` find the value of the longest prefix that holds it.

    `in`, iteration, insertion and deletion go by prefix. Iteration is ordered by address, then by length, gives networks of
    `ipaddress`, and sees the table as it was when it began.

    Values are any objects. Ints from 0 to 2**32 - 2 are kept as numbers: an equal int comes out, not the same object.

    A table holds the family of its first prefix, or the one it was given. PrefixError, which is a ValueError: a key is of the
    other family, is not well-formed, or has host bits set, unless the table was made with `strict=False`, which clears them; or
    an address is given where only a prefix will do. TypeError: it is nothing like a key. KeyError: there is no such prefix.

    Several threads may use a table at once: each call is atomic, except that very large batches are looked up a million addresses
    at a time. A table can be copied and pickled, and compared with any mapping; it is not hashable.

    Lookups read poptrie-like nodes (Asai and Ohara, SIGCOMM 2015) in the core; `overlaynet_core::table` says how and why.
    """

    def __new__(
        cls,
        entries: PrefixTable[_T] | Mapping[Any, _T] | Iterable[tuple[_Prefix, _T]] | None = None,
        /,
        *,
        family: Literal[4, 6] | None = None,
        strict: bool = True,
    ) -> PrefixTable[_T]: ...
    @property
    def family(self) -> Literal[4, 6] | None:
        """The IP version of the prefixes; None while there were none and nothing was said."""

    @property
    def strict(self) -> bool:
        """Whether host bits in a prefix are an error; else they are cleared."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: _Key, /) -> _T: ...
    def __setitem__(self, prefix: _Prefix, value: _T, /) -> None: ...
    def __delitem__(self, prefix: _Prefix, /) -> None: ...
    def __contains__(self, prefix: object, /) -> bool: ...
    def __iter__(self) -> Iterator[_Network]: ...
    def __reversed__(self) -> Iterator[_Network]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __copy__(self) -> PrefixTable[_T]: ...
    def __or__(self, other: Mapping[Any, _D], /) -> PrefixTable[_T | _D]:
        """The entries of both; where both have a prefix, the value of `other`."""

    def __ror__(self, other: Mapping[Any, _D], /) -> PrefixTable[_T | _D]: ...
    def __ior__(self, other: Mapping[Any, _T], /) -> Self: ...  # type: ignore[misc]  # a table stays one of the same values
    def __and__(self, other: PrefixTable[Any], /) -> PrefixTable[_T]:
        """The entries whose prefixes are in `other`, too."""

    def __sub__(self, other: PrefixTable[Any], /) -> PrefixTable[_T]:
        """The entries whose prefixes are not in `other`."""

    def keys(self) -> KeysView[_Network]:
        """The prefixes, as a set that changes with the table."""

    def values(self) -> ValuesView[_T]:
        """The values, in the order of their prefixes."""

    def items(self) -> ItemsView[_Network, _T]:
        """The entries, as pairs of a network and its value."""

    @overload
    def get(self, key: _Key, /) -> _T | None: ...
    @overload
    def get(self, key: _Key, default: _T | _D, /) -> _T | _D:
        """The value of exactly a prefix, or of the longest prefix that holds an address; `default` if there is none."""

    @overload
    def pop(self, prefix: _Prefix, /) -> _T: ...
    @overload
    def pop(self, prefix: _Prefix, default: _T | _D, /) -> _T | _D:
        """The value of exactly `prefix`, which is no longer in the table; without it, `default` or KeyError."""

    def popitem(self) -> tuple[_Network, _T]:
        """The first entry, which is no longer in the table. KeyError: it is empty."""

    @overload
    def setdefault(self: PrefixTable[_D | None], prefix: _Prefix, default: None = None, /) -> _D | None: ...
    @overload
    def setdefault(self, prefix: _Prefix, default: _T, /) -> _T:
        """The value of exactly `prefix`, which is `default` if it was not in the table."""

    def update(self, entries: PrefixTable[_T] | Mapping[Any, _T] | Iterable[tuple[_Prefix, _T]], /) -> None:  # type: ignore[override]
        """Insert all entries or, if one is refused, none."""

    def load(self, prefixes: Iterable[_Prefix] | Buffer, values: Iterable[_T] | Buffer, /) -> None:
        """Insert `prefixes` with a value each or, if one is refused, none. ValueError: there are not equally many.

        Prefixes may also be packed one behind the other in a buffer, 5 bytes each (17 for IPv6): an address in network order and
        a byte with the length. The table must know its family then. Values in an array become plain numbers. An empty table is
        built as a whole, which takes a fraction of the time that insertions do, least if the prefixes come in order.
        """

    def clear(self) -> None:
        """Remove every prefix; the family stays."""

    def lookup(self, address: _Address, /) -> tuple[_Network, _T] | None:
        """The longest prefix that holds `address` and its value, or None."""

    def lookup_many(self, addresses: Buffer, /, *, missing: int = -1, stride: int | None = None) -> memoryview:
        """The values for many addresses, each an int from 0 to 2**32 - 2 in the table, or `missing`: a `memoryview` of `int64`.

        `addresses` is a buffer of packed addresses, one behind the other (4 or 16 bytes each, in network order), or for IPv4 an
        array of unsigned 32-bit numbers in any byte order. With `stride` each lies at the start of so many bytes: the columns of
        `decode_many` have 16. The buffer is read in place; what another thread writes into it meanwhile is seen or not, byte by
        byte. Other threads run meanwhile if there are many. ValueError: a value that was found is no such int, the buffer does
        not hold a whole number of addresses, or the table is of no family yet. TypeError: the buffer's items are something else.
        """

    def lookup_slots(self, addresses: Buffer, /, *, stride: int | None = None) -> memoryview:
        """The slot of the longest prefix for each of many addresses, or 2**32 - 1: a `memoryview` of `uint32`.

        As `lookup_many`, for values of any kind. `entry(slot)` tells what is there.
        """

    def entry(self, slot: int, /) -> tuple[_Network, _T]:
        """The prefix and the value at a slot, which are the same until the prefix is removed. IndexError: there is none."""

    def covering(self, prefix: _Key, /) -> list[tuple[_Network, _T]]:
        """The entries whose prefixes hold `prefix` (itself, if it is there, comes last) or an address, the shortest first."""

    def covered(self, prefix: _Key, /) -> list[tuple[_Network, _T]]:
        """The entries whose prefixes `prefix` covers (itself, if it is there, comes first), in order."""

    def overlaps(self, prefix: _Key, /) -> bool:
        """Whether an address lies both in `prefix` and in a prefix of the table."""

    def aggregate(self) -> PrefixTable[_T]:
        """A table that finds an equal value for each address, with fewer prefixes where that is possible.

        Two halves of a prefix that have equal values are one, and what lies in a prefix of equal value is left out. This is not
        always the least number of prefixes (Draves et al., INFOCOM 1999).
        """

    def copy(self) -> PrefixTable[_T]:
        """A table with the same entries."""

    def __reduce__(self) -> tuple[Any, ...]: ...
    def __setstate__(self, state: tuple[Any, ...], /) -> None: ...

@overload
def iterate(table: PrefixTable[_T], what: Literal["values"], /, *, backwards: bool = False) -> Iterator[_T]: ...
@overload
def iterate(table: PrefixTable[_T], what: Literal["items"], /, *, backwards: bool = False) -> Iterator[tuple[_Network, _T]]:
    """The values or the entries of `table` as they are now, in order. This is what its views iterate over."""

@final
class Ethernet:
    """An Ethernet II header. Addresses are six hexadecimal pairs joined by colons."""

    __match_args__ = ("destination", "source", "ether_type")
    def __new__(cls, destination: str, source: str, ether_type: int | None = None) -> Ethernet: ...
    @property
    def destination(self) -> str:
        """The station that the frame is for."""

    @property
    def source(self) -> str:
        """The station that sent the frame."""

    @property
    def ether_type(self) -> int | None:
        """What comes next; None: the next layer says it."""

    def __replace__(self, **changes: object) -> Ethernet: ...

@final
class Vlan:
    """A VLAN tag behind an Ethernet header or another tag (IEEE 802.1Q)."""

    __match_args__ = ("vid", "priority", "drop_eligible", "ether_type")
    def __new__(cls, vid: int, priority: int = 0, drop_eligible: bool = False, ether_type: int | None = None) -> Vlan: ...
    @property
    def vid(self) -> int:
        """The VLAN identifier, at most 4095."""

    @property
    def priority(self) -> int:
        """The priority code point, at most 7."""

    @property
    def drop_eligible(self) -> bool:
        """Whether the frame may be dropped first when there is congestion."""

    @property
    def ether_type(self) -> int | None:
        """What comes next; None: the next layer says it."""

    def __replace__(self, **changes: object) -> Vlan: ...

@final
class Arp:
    """An ARP message about IPv4 over Ethernet (RFC 826); other ARP is payload."""

    __match_args__ = ("operation", "sender_mac", "sender", "target_mac", "target")
    def __new__(cls, operation: int, sender_mac: str, sender: _Address, target_mac: str, target: _Address) -> Arp: ...
    @property
    def operation(self) -> int:
        """1 asks who has the target's address, 2 answers."""

    @property
    def sender_mac(self) -> str:
        """The sender's Ethernet address."""

    @property
    def sender(self) -> IPv4Address:
        """The sender's address."""

    @property
    def target_mac(self) -> str:
        """The target's Ethernet address; all zero in a request."""

    @property
    def target(self) -> IPv4Address:
        """The target's address."""

    def __replace__(self, **changes: object) -> Arp: ...

@final
class Ipv4:
    """An IPv4 header (RFC 791)."""

    __match_args__ = (
        "source",
        "destination",
        "protocol",
        "ttl",
        "tos",
        "identification",
        "dont_fragment",
        "more_fragments",
        "fragment_offset",
        "options",
    )
    def __new__(
        cls,
        source: _Address,
        destination: _Address,
        protocol: int | None = None,
        ttl: int = 64,
        tos: int = 0,
        identification: int = 0,
        dont_fragment: bool = False,
        more_fragments: bool = False,
        fragment_offset: int = 0,
        options: bytes = ...,
    ) -> Ipv4: ...
    @property
    def source(self) -> IPv4Address:
        """Where the packet comes from."""

    @property
    def destination(self) -> IPv4Address:
        """Where the packet goes."""

    @property
    def protocol(self) -> int | None:
        """What comes next; None: the next layer says it."""

    @property
    def ttl(self) -> int:
        """How many more routers the packet may pass."""

    @property
    def tos(self) -> int:
        """The type-of-service byte: DSCP and ECN."""

    @property
    def identification(self) -> int:
        """The number that the fragments of one packet share."""

    @property
    def dont_fragment(self) -> bool:
        """Whether routers must not fragment the packet."""

    @property
    def more_fragments(self) -> bool:
        """Whether more fragments of the packet follow."""

    @property
    def fragment_offset(self) -> int:
        """Where the fragment's payload starts, in units of eight bytes; at most 8191."""

    @property
    def options(self) -> bytes:
        """The options with their padding: a multiple of four bytes, at most 40."""

    def __replace__(self, **changes: object) -> Ipv4: ...

@final
class Ipv6:
    """An IPv6 header (RFC 8200) and the bytes of its extension headers."""

    __match_args__ = ("source", "destination", "next_header", "hop_limit", "traffic_class", "flow_label", "extensions")
    def __new__(
        cls,
        source: _Address,
        destination: _Address,
        next_header: int | None = None,
        hop_limit: int = 64,
        traffic_class: int = 0,
        flow_label: int = 0,
        extensions: bytes = ...,
    ) -> Ipv6: ...
    @property
    def source(self) -> IPv6Address:
        """Where the packet comes from."""

    @property
    def destination(self) -> IPv6Address:
        """Where the packet goes next; its final destination unless a routing header says otherwise."""

    @property
    def next_header(self) -> int | None:
        """What comes next, an extension header or a transport; None: the next layer says it."""

    @property
    def hop_limit(self) -> int:
        """How many more routers the packet may pass."""

    @property
    def traffic_class(self) -> int:
        """The traffic class: DSCP and ECN."""

    @property
    def flow_label(self) -> int:
        """The flow label, 20 bits."""

    @property
    def extensions(self) -> bytes:
        """The extension headers, of which `next_header` names the first."""

    def __replace__(self, **changes: object) -> Ipv6: ...

@final
class Udp:
    """A UDP header (RFC 768)."""

    __match_args__ = ("source_port", "destination_port", "checksum")
    def __new__(cls, source_port: int, destination_port: int, checksum: bool = True) -> Udp: ...
    @property
    def source_port(self) -> int:
        """The sender's port."""

    @property
    def destination_port(self) -> int:
        """The receiver's port."""

    @property
    def checksum(self) -> bool:
        """Whether there is a checksum."""

    def __replace__(self, **changes: object) -> Udp: ...

@final
class Tcp:
    """A TCP header (RFC 9293)."""

    __match_args__ = (
        "source_port",
        "destination_port",
        "sequence",
        "acknowledgement",
        "flags",
        "window",
        "urgent",
        "options",
    )
    def __new__(
        cls,
        source_port: int,
        destination_port: int,
        sequence: int = 0,
        acknowledgement: int = 0,
        flags: int = 0,
        window: int = 0,
        urgent: int = 0,
        options: bytes = ...,
    ) -> Tcp: ...
    @property
    def source_port(self) -> int:
        """The sender's port."""

    @property
    def destination_port(self) -> int:
        """The receiver's port."""

    @property
    def sequence(self) -> int:
        """The number of the first byte of data."""

    @property
    def acknowledgement(self) -> int:
        """The number of the byte that is expected next."""

    @property
    def flags(self) -> int:
        """The control bits: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128."""

    @property
    def window(self) -> int:
        """The receive window, not scaled."""

    @property
    def urgent(self) -> int:
        """The urgent pointer."""

    @property
    def options(self) -> bytes:
        """The options with their padding: a multiple of four bytes, at most 40."""

    def __replace__(self, **changes: object) -> Tcp: ...

@final
class Icmp:
    """An ICMP header (RFC 792)."""

    __match_args__ = ("kind", "code", "rest")
    def __new__(cls, kind: int, code: int = 0, rest: bytes = ...) -> Icmp: ...
    @property
    def kind(self) -> int:
        """The type."""

    @property
    def code(self) -> int:
        """The code."""

    @property
    def rest(self) -> bytes:
        """The last four bytes, whose meaning depends on the type."""

    def __replace__(self, **changes: object) -> Icmp: ...

@final
class Icmpv6:
    """An ICMPv6 header (RFC 4443)."""

    __match_args__ = ("kind", "code", "rest")
    def __new__(cls, kind: int, code: int = 0, rest: bytes = ...) -> Icmpv6: ...
    @property
    def kind(self) -> int:
        """The type."""

    @property
    def code(self) -> int:
        """The code."""

    @property
    def rest(self) -> bytes:
        """The last four bytes, whose meaning depends on the type."""

    def __replace__(self, **changes: object) -> Icmpv6: ...

@final
class Vxlan:
    """A VXLAN header (RFC 7348), with the group policy extension (draft-smith-vxlan-group-policy) if it has a group."""

    __match_args__ = ("vni", "group", "dont_learn", "policy_applied")
    def __new__(cls, vni: int, group: int | None = None, dont_learn: bool = False, policy_applied: bool = False) -> Vxlan: ...
    @property
    def vni(self) -> int:
        """The network identifier, 24 bits."""

    @property
    def group(self) -> int | None:
        """The group that the sender belongs to, 16 bits; None: no extension."""

    @property
    def dont_learn(self) -> bool:
        """Whether the receiver must not learn the inner source address from this packet."""

    @property
    def policy_applied(self) -> bool:
        """Whether the policy was applied already."""

    def __replace__(self, **changes: object) -> Vxlan: ...

_Layer: TypeAlias = Ethernet | Vlan | Arp | Ipv4 | Ipv6 | Udp | Tcp | Icmp | Icmpv6 | Vxlan
_LayerT = TypeVar("_LayerT", Ethernet, Vlan, Arp, Ipv4, Ipv6, Udp, Tcp, Icmp, Icmpv6, Vxlan)
_First: TypeAlias = Literal["ethernet", "vlan", "arp", "ip", "ipv4", "ipv6", "udp", "tcp", "icmp", "icmpv6", "vxlan"]
_Checksum: TypeAlias = Literal["absent", "right", "wrong", "unknown"]

@final
class Packet:
    """What `decode` found: the layers from the outermost inwards, and the payload.

    It keeps the buffer and no values: a layer is read when it is asked for. `len(packet)` layers; `packet[i]` is the i-th.
    """

    @property
    def layers(self) -> tuple[_Layer, ...]:
        """All layers."""

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names: ethernet, vlan, arp, ipv4, ipv6, udp, tcp, icmp, icmpv6, vxlan."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each layer starts, in bytes from the start of the buffer."""

    @property
    def checksums(self) -> tuple[_Checksum, ...]:
        """What is known of each layer's checksum; unknown: the addresses that it covers are not there."""

    @property
    def payload(self) -> memoryview:
        """What the innermost layer carries; it shares the memory of the bytes that were decoded."""

    @property
    def payload_offset(self) -> int:
        """Where the payload starts, in bytes from the start of the buffer."""

    @property
    def vni(self) -> int | None:
        """The innermost VXLAN header's network identifier, or None."""

    @property
    def fault(self) -> DecodeError | None:
        """Why the layers end before the payload; None if they do not. With `strict`, `decode` raised it."""

    def outermost(self, kind: type[_LayerT], /) -> _LayerT | None:
        """The outermost layer of this kind, or None."""

    def innermost(self, kind: type[_LayerT], /) -> _LayerT | None:
        """The innermost layer of this kind, or None."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> _Layer: ...

def decode(buffer: Buffer, /, first: _First = "ethernet", *, tunnels: bool = True, strict: bool = True) -> Packet:
    """The packet in `buffer`, down to the innermost payload; DecodeError if a header is not what the one before announces.

    Without `strict` there is no DecodeError: the layers end before the one at fault, which is in `Packet.fault`.

    `first` is the header with which it starts; `ip` is IPv4 or IPv6, as the version field says. With `tunnels`, what follows UDP
    destination ports 4789 and 8472 is VXLAN, and what follows 8285 an IP packet. Fragments and the packets that ICMP errors quote
    are payload. A wrong checksum is no error. Nothing is copied out of `bytes` and their memoryviews; any other buffer, which
    may change, is copied once.
    """

def pretty(buffer: Buffer, /, first: _First = "ethernet", *, tunnels: bool = True) -> str:
    """The packet in `buffer` as text, one line a header; a fault is the last line."""

def encode(*layers: _Layer, payload: Buffer | None = None) -> bytes:
    """The packet of `layers`, the outermost first, around `payload`, with all lengths and checksums filled in.

    ValueError says which field has no room for its value, or that a layer needs another one around it or after it.
    """

@overload
def encode_many(*layers: _Layer, payloads: Iterable[Buffer], stride: None = None) -> list[bytes]: ...
@overload
def encode_many(*layers: _Layer, payloads: Buffer, stride: int) -> bytes: ...
@overload
def encode_many(*layers: _Layer, payloads: Iterable[Buffer] | Buffer, stride: int | None = None) -> list[bytes] | bytes:
    """One packet for each of `payloads`, all with the same layers; lengths and checksums are each packet's own.

    With `stride`, `payloads` are slots of that many bytes in one buffer, and so are the packets: each `stride` bytes and the
    layers' length. Errors are `encode`'s, and a stride that does not divide the buffer.
    """

@final
class Tunnel:
    """Layers that stay the same, written once and put around payloads. Immutable; safe for use by several threads."""

    def __new__(cls, *layers: _Layer) -> Tunnel:
        """The tunnel of `layers`, the outermost first; ValueError as for `encode`."""

    @property
    def layers(self) -> tuple[_Layer, ...]:
        """The layers, the outermost first."""

    @property
    def overhead(self) -> int:
        """How many bytes the layers take."""

    def wrap(self, payload: Buffer, /) -> bytes:
        """The packet of the layers around `payload`; what `encode` gives. ValueError if it is too long for a layer."""

    @overload
    def wrap_many(self, payloads: Iterable[Buffer], /, *, stride: None = None) -> list[bytes]: ...
    @overload
    def wrap_many(self, payloads: Buffer, /, *, stride: int) -> bytes: ...
    @overload
    def wrap_many(self, payloads: Iterable[Buffer] | Buffer, /, *, stride: int | None = None) -> list[bytes] | bytes:
        """One packet for each of `payloads`; what `encode_many` gives."""

@final
class Columns:
    """A read-only mapping from names to columns: what `decode_many` tells of each packet.

    A column is a `memoryview` of numbers in this machine's byte order, made when it is asked for; `numpy.asarray` of it copies
    nothing. KeyError: there is no such column.
    """

    def __getitem__(self, name: str, /) -> memoryview: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def keys(self) -> tuple[str, ...]:
        """The columns' names."""

    def items(self) -> tuple[tuple[str, memoryview], ...]:
        """The columns with their names."""

@overload
def decode_many(frames: Iterable[Buffer], /, first: _First = "ethernet", *, tunnels: bool = True) -> Columns: ...
@overload
def decode_many(frames: Buffer, /, first: _First = "ethernet", *, stride: int, tunnels: bool = True) -> Columns: ...
@overload
def decode_many(
    frames: Buffer, /, first: _First = "ethernet", *, lengths: Sequence[int] | memoryview, tunnels: bool = True
) -> Columns: ...
@overload
def decode_many(
    frames: Iterable[Buffer] | Buffer,
    /,
    first: _First = "ethernet",
    *,
    stride: int | None = None,
    lengths: Sequence[int] | memoryview | None = None,
    tunnels: bool = True,
) -> Columns:
    """Columns about many packets, one item a packet, in numbers of this machine's byte order.

    `frames` are buffers; or with `stride` one buffer of slots of that many bytes; or with `lengths` one buffer in which packets
    of these lengths lie one behind the other. Nothing raises DecodeError: `fault` is 0, or 1 truncated, 2 wrong version, 3 wrong
    length, 4 required flag not set, and the other columns tell what came before it: `layers`, `wrong_checksums`, `vni` (-1:
    none), `payload_offset`, `payload_length`, and of the innermost IP header `version`, `protocol`, `source_port`,
    `destination_port`, `source` and `destination`. Addresses take 16 bytes each, an IPv4 address the first four: item i is
    `source[16 * i : 16 * i + 16]`.
    """

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

@final
class Tun:
    """An existing TUN device, out of and into which packets are taken in batches. Nothing waits; safe for use by several threads.

    A context manager, which closes it. Closing leaves the device in place. Packets are IP packets without further header.
    """

    def __new__(cls, name: str, /) -> Tun:
        """Attach to the TUN device `name`; DataplaneError: it does not exist, is of another kind, or is taken."""

    @property
    def name(self) -> str:
        """The device's name."""

    def fileno(self) -> int:
        """The file descriptor, which is readable when packets wait: for `select` or `loop.add_reader`."""

    def read_many(self, buffer: Buffer, /) -> memoryview:
        """The lengths in bytes of the packets that waited, which now lie one behind the other in `buffer`; none: none waited.

        Reading stops when less than 65,536 bytes of the buffer are left, which is the least that it must have (ValueError), so
        that no packet is cut. DataplaneError: the device is gone.
        """

    def write_many(self, packets: Buffer | Iterable[Buffer], /, lengths: Sequence[int] | memoryview | None = None) -> None:
        """Hand packets to the kernel, as if they had come in by the device. With `lengths` they lie one behind the other.

        DataplaneError names the first packet that the device did not take: it is down, or the packet is none of IP. Those before
        it were taken.
        """

    def close(self) -> None:
        """Let go of the device. It may be closed again."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...

class Pump:
    """The packet engine: a TUN device, a UDP socket for each family, and one thread between them.

    Made but not started, it holds its device and sockets. Tables may be exchanged at any time, from any thread.
    """

    def __new__(
        cls,
        *,
        tun: str,
        bind: Sequence[tuple[str, int]],
        mtu: int,
        offloads: Sequence[str],
        spread: bool = False,
        tap: str | None = None,
    ) -> Self:
        """Attach to the TUN device `tun`, which exists, and bind a UDP socket for each family; `mtu` is the device's, in bytes.

        With `spread` each flow leaves from one of several source ports; else all leave from the port that is bound.

        `offloads` are those that may be used: `tso`, `uso`, `gso`, `gro`, `batch`, `poll`. DataplaneError: the device or the
        address cannot be had, or there is no such offload.

        With `tap`, the name of a TAP device from which this host forwards, TCP super-packets of VXLAN peers leave whole through
        it while it is there and echo requests to the peer through it are answered.
        """

    def configure(
        self,
        *,
        local: Sequence[str],
        addresses: Sequence[str],
        peers: Sequence[tuple[Sequence[str], str, int, str | None]],
        vteps: tuple[int, str, str] | None = None,
        source_check: str = "strict",
    ) -> None:
        """Exchange the tables in one step.

        `local` are this host's subnets, `addresses` its own in the overlay (the sources of its ICMP errors), `peers` each peer's
        subnets, public address, port, and its VTEP's link-layer address. `vteps` are the VNI and this host's own link-layer
        addresses for IPv4 and IPv6 inside; without them packets are carried without VXLAN and Ethernet headers. Peers that stay
        keep their counters. `source_check` is how far the sources of incoming packets must fit: `strict` (the datagram's a peer's
        address, the packet's that peer's subnet), `inner` (the packet's any peer's subnet), `off`. DataplaneError: a text is no
        address, no prefix, or no such check.
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
        `peers` by public address. Bytes are those of inner packets. With a TAP also `tap`: `super_packets` that left through it,
        and `fallbacks`, how often it was left while they did.
        """

    def offloads(self) -> dict[str, str]:
        """How it stands with each offload and with `tap`: `on`, `off`, `missing: ` or `given up: ` with the system's reason, and
        `given up for ` with a peer's address and what is known of the reason.
        """

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
