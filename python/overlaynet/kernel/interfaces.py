"""Which link carries the encapsulated packets, and with which addresses.

The flags mean what flannel's mean (`--iface`, `--iface-regex`, `--iface-can-reach`, `--public-ip`, `--public-ipv6`): the first
`--iface` that resolves wins; then the first `--iface-regex` that matches any link's address, or else any link's name; then
`--iface-can-reach`. With none of them a public address that is a local one selects its link; otherwise the default route does.
What is chosen is chosen once, at start; where an address of the chosen link goes later, the link's best takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from operator import itemgetter

from overlaynet.errors import ConfigError
from overlaynet.kernel import entries, messages
from overlaynet.kernel.bulk import BulkSocket
from overlaynet.kernel.namespace import NamespaceThread
from overlaynet.kernel.refusals import as_kernel_error
from overlaynet.kernel.rtnetlink import Message, Record, RouteSocket
from overlaynet.model.addresses import Address, Family, LinkIndex, Mtu

_IFA_F_TEMPORARY = 0x01
_IFA_F_DADFAILED = 0x08
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_IFA_F_PERMANENT = 0x80


@dataclass(frozen=True, slots=True)
class Selection:
    """What the flags say. `families` are those in which the network needs an underlay address; empty: whatever there is."""

    iface: Sequence[str] = ()
    iface_regex: Sequence[str] = ()
    can_reach: Address | None = None
    public_ipv4: IPv4Address | None = None
    public_ipv6: IPv6Address | None = None
    families: Sequence[Family] = ()

    @property
    def names_a_link(self) -> bool:
        """Whether any flag chooses the link."""
        return bool(self.iface or self.iface_regex or self.can_reach is not None)


@dataclass(frozen=True, slots=True)
class ChosenUnderlay:
    """The underlay link, its addresses (the outer sources), and the addresses published to peers."""

    link: str
    local_ipv4: IPv4Address | None
    local_ipv6: IPv6Address | None
    public_ipv4: IPv4Address | None
    public_ipv6: IPv6Address | None
    up: bool = True


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of a link, with what speaks for or against it.

    A `duplicate` one is another host's as well (RFC 4862 section 5.4.5): the kernel keeps it, and sends nothing from it. Of a
    `tentative` one that is not known yet.
    """

    address: Address
    permanent: bool = True
    temporary: bool = False
    deprecated: bool = False
    duplicate: bool = False
    tentative: bool = False

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """The smaller the better: global before link-local, permanent before dynamic, lasting before temporary."""
        return (self.address.is_link_local, not self.permanent, self.temporary)


@dataclass(frozen=True, slots=True)
class Interface:
    """A link that could be the underlay."""

    name: str
    mtu: Mtu
    up: bool = True
    loopback: bool = False
    addresses: tuple[InterfaceAddress, ...] = ()

    def best(self, family: Family) -> Address | None:
        """The address to send from, or None: deprecated, duplicate and loopback ones are never taken."""
        ours = [entry for entry in self.addresses if Family.of(entry.address) is family]
        usable = [entry for entry in ours if not (entry.deprecated or entry.duplicate or entry.address.is_loopback)]
        return min(usable, key=lambda entry: entry.rank).address if usable else None

    def has(self, address: Address) -> bool:
        """Whether the address is the link's."""
        return any(entry.address == address for entry in self.addresses)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The host's links, the links of its default routes by family, and where the address of `can_reach` is reached."""

    interfaces: tuple[Interface, ...]
    default: dict[Family, str] = field(default_factory=dict)
    reached: tuple[str, Address | None] | None = None


async def choose_underlay(selection: Selection, namespace: str | None = None) -> ChosenUnderlay:
    """The underlay that the flags choose. ConfigError names the flag, and what there is; KernelError: it cannot be read."""
    thread = NamespaceThread(namespace)
    try:
        connection = await RouteSocket.open(thread)
        try:
            default = await thread.call(_default_routes)
            surroundings = await _look_around(connection, selection, default)
        except OSError as error:
            raise as_kernel_error(error, "read", "links and addresses") from error
        finally:
            connection.close()
    finally:
        thread.close()
    return select(selection, surroundings)


def select(selection: Selection, surroundings: Surroundings) -> ChosenUnderlay:
    """The underlay that the flags choose among these surroundings; pure. ConfigError as `choose_underlay`."""
    interface, wanted, flag = _select_interface(selection, surroundings)
    if not interface.mtu:
        raise ConfigError(flag, interface.name, "this link has MTU 0: set its MTU, or choose another")
    ipv4 = interface.best(Family.IPV4)
    ipv6 = interface.best(Family.IPV6)
    if wanted is not None:
        if wanted.is_loopback:
            raise ConfigError(flag, str(wanted), f"no peer reaches a loopback address; {_candidates(surroundings)}")
        ipv4, ipv6 = (wanted, ipv6) if Family.of(wanted) is Family.IPV4 else (ipv4, wanted)
    if isinstance(ipv6, IPv6Address) and ipv6.is_link_local and Family.IPV6 not in selection.families:
        ipv6 = None
    local_ipv4 = ipv4 if isinstance(ipv4, IPv4Address) else None
    local_ipv6 = ipv6 if isinstance(ipv6, IPv6Address) else None
    for family, local in ((Family.IPV4, local_ipv4), (Family.IPV6, local_ipv6)):
        if family in selection.families and local is None:
            raise ConfigError(flag, interface.name, f"this link has no usable IPv{family.value} address, which the network needs")
    if local_ipv4 is None and local_ipv6 is None:
        raise ConfigError(flag, interface.name, f"this link has no usable address; {_candidates(surroundings)}")
    return ChosenUnderlay(
        link=interface.name,
        local_ipv4=local_ipv4,
        local_ipv6=local_ipv6,
        public_ipv4=selection.public_ipv4 or local_ipv4,
        public_ipv6=selection.public_ipv6 or local_ipv6,
        up=interface.up,
    )


def _select_interface(selection: Selection, surroundings: Surroundings) -> tuple[Interface, Address | None, str]:
    for text in selection.iface:
        found = _by_name_or_address(text, surroundings)
        if found is not None:
            return (*found, "--iface")
    for pattern in selection.iface_regex:
        matched = _by_pattern(pattern, surroundings)
        if matched is not None:
            return (*matched, "--iface-regex")
    if selection.can_reach is not None:
        interface, source = _reached(selection.can_reach, surroundings)
        return interface, source, "--iface-can-reach"
    if selection.iface:
        raise ConfigError("--iface", ", ".join(selection.iface), f"no such link or local address; {_candidates(surroundings)}")
    if selection.iface_regex:
        raise ConfigError(
            "--iface-regex", ", ".join(selection.iface_regex), f"matches no link or local address; {_candidates(surroundings)}"
        )
    return _by_default(selection, surroundings)


def _by_default(selection: Selection, surroundings: Surroundings) -> tuple[Interface, Address | None, str]:
    public = selection.public_ipv4 or selection.public_ipv6
    if public is not None:
        flag = "--public-ip" if selection.public_ipv4 else "--public-ipv6"
        for interface in surroundings.interfaces:
            if interface.has(public):
                return interface, public, flag
        raise ConfigError(
            flag, str(public), f"no local address: with address translation give --iface as well; {_candidates(surroundings)}"
        )
    families = tuple(selection.families) or tuple(surroundings.default)[:1]
    links = dict.fromkeys(surroundings.default.get(family) for family in families)
    names = [name for name in links if name is not None]
    if not names or None in links:
        raise ConfigError("--iface", "", f"no default route tells which link to use: choose one; {_candidates(surroundings)}")
    if len(names) > 1:
        raise ConfigError("--iface", "", f"the default routes leave by {' and '.join(names)}: choose one")
    for interface in surroundings.interfaces:
        if interface.name == names[0]:
            return interface, None, "--iface"
    raise ConfigError("--iface", names[0], f"the default route's link has vanished; {_candidates(surroundings)}")


def _by_name_or_address(text: str, surroundings: Surroundings) -> tuple[Interface, Address | None] | None:
    address = _as_address(text)
    for interface in surroundings.interfaces:
        if address is None and interface.name == text:
            return interface, None
        if address is not None and interface.has(address):
            return interface, address
    return None


def _by_pattern(pattern: str, surroundings: Surroundings) -> tuple[Interface, Address | None] | None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError("--iface-regex", pattern, f"not a regular expression: {error}") from error
    for interface in surroundings.interfaces:
        for entry in sorted(interface.addresses, key=lambda entry: entry.address.version):
            if not entry.address.is_loopback and compiled.search(str(entry.address)):
                return interface, entry.address
    for interface in surroundings.interfaces:
        if not (interface.loopback and _is_bare(interface)) and compiled.search(interface.name):
            return interface, None
    return None


def _is_bare(interface: Interface) -> bool:
    """Whether the link has no address to send from."""
    return all(interface.best(family) is None for family in Family)


def _reached(target: Address, surroundings: Surroundings) -> tuple[Interface, Address | None]:
    if surroundings.reached is not None:
        name, source = surroundings.reached
        for interface in surroundings.interfaces:
            if interface.name == name:
                return interface, source
    raise ConfigError("--iface-can-reach", str(target), f"no route leads there; {_candidates(surroundings)}")


def _as_address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _candidates(surroundings: Surroundings) -> str:
    names = [
        " ".join([interface.name, *(str(entry.address) for entry in interface.addresses if not entry.address.is_link_local)])
        for interface in surroundings.interfaces
        if not interface.loopback
    ]
    return f"links here: {', '.join(names) or 'none'}"


async def _look_around(
    connection: RouteSocket, selection: Selection, default_routes: dict[Family, list[tuple[int, LinkIndex]]]
) -> Surroundings:
    views = [messages.read_link(record) for record in await connection.dump(Message("link"))]
    names = {view.index: view.name for view in views}
    by_link: dict[int, list[InterfaceAddress]] = {}
    for record in await connection.dump(Message("address")):
        by_link.setdefault(record["index"], []).append(interface_address(record))
    interfaces = tuple(
        Interface(
            name=view.name,
            mtu=view.mtu,
            up=view.up,
            loopback=bool(view.flags & messages.IFF_LOOPBACK),
            addresses=tuple(by_link.get(view.index, ())),
        )
        for view in views
    )
    default = {family: names.get(min(routes, key=itemgetter(0))[1], "") for family, routes in default_routes.items() if routes}
    reached = None if selection.can_reach is None else await _route_to(connection, selection.can_reach, names)
    return Surroundings(interfaces, default, reached)


def _default_routes() -> dict[Family, list[tuple[int, LinkIndex]]]:
    """The metrics and links of the main table's default routes, among which a daemon that starts again has all of its own."""
    bulk = BulkSocket.open()
    try:
        return {
            family: [
                (entries.route_metric(fields), entries.route_link(fields))
                for fields in bulk.routes(number)
                if entries.is_default(fields)
            ]
            for family, number in messages.FAMILIES.items()
        }
    finally:
        bulk.close()


async def _route_to(connection: RouteSocket, target: Address, names: dict[LinkIndex, str]) -> tuple[str, Address | None] | None:
    family = Family.of(target)
    asked = Message("route", {"family": messages.FAMILIES[family], "dst_len": family.bits}, (("RTA_DST", str(target)),))
    try:
        answers = await connection.ask(asked)
    except OSError:
        return None  # unreachable, whatever the reason
    for record in answers:
        name = names.get(record.find("RTA_OIF", 0))
        source = record.find("RTA_PREFSRC")
        if name is not None:
            return name, None if source is None else ip_address(source)
    return None


def usable(addresses: Iterable[InterfaceAddress]) -> tuple[Address, ...]:
    """Those that packets to other networks may be sent from, the best first."""
    fit = [entry for entry in addresses if not (entry.deprecated or entry.duplicate or entry.tentative)]
    beyond = [entry for entry in fit if not (entry.address.is_loopback or entry.address.is_link_local)]
    return tuple(entry.address for entry in sorted(beyond, key=lambda entry: entry.rank))


def interface_address(record: Record) -> InterfaceAddress:
    """A dumped address (linux/if_addr.h)."""
    flags = record.find("IFA_FLAGS", record["flags"])
    return InterfaceAddress(
        address=messages.read_address(record),
        permanent=bool(flags & _IFA_F_PERMANENT),
        temporary=bool(flags & _IFA_F_TEMPORARY),
        deprecated=bool(flags & _IFA_F_DEPRECATED),
        duplicate=bool(flags & _IFA_F_DADFAILED),
        tentative=bool(flags & _IFA_F_TENTATIVE),
    )
