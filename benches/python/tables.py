"""The tables and the addresses of `benches/rust/src/tables.rs`, by the same rules and from the same seeds: see there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

WORD = (1 << 64) - 1

V4_LENGTHS = [
    (24, 598),
    (23, 95),
    (22, 108),
    (21, 52),
    (20, 45),
    (19, 27),
    (18, 14),
    (17, 9),
    (16, 14),
    (15, 2),
    (14, 2),
    (13, 1),
]
V4_LENGTHS += [(12, 1), (11, 1), (25, 10), (28, 11), (32, 10)]
V6_LENGTHS = [(48, 470), (32, 130), (44, 100), (40, 90), (36, 45), (46, 40), (47, 35), (29, 25), (42, 15), (45, 12), (33, 12)]
V6_LENGTHS += [(34, 10), (38, 8), (56, 4), (64, 4)]
BLOCKS = [(0x2001, 16), (0x2400, 12), (0x2600, 12), (0x2800, 12), (0x2A00, 12), (0x2A00, 12), (0x2C00, 12), (0x2A10, 12)]


class Numbers:
    """Marsaglia's xorshift64*."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def next(self) -> int:
        state = self.state
        state ^= state >> 12
        state ^= state << 25 & WORD
        state ^= state >> 27
        self.state = state
        return state * 0x2545_F491_4F6C_DD1D & WORD

    def below(self, end: int) -> int:
        return self.next() * end >> 64

    def shuffle(self, items: list[int]) -> None:
        for at in range(len(items) - 1, 0, -1):
            other = self.below(at + 1)
            items[at], items[other] = items[other], items[at]


@dataclass(frozen=True, slots=True)
class Table:
    """Prefixes in order, as number and length; values are their ranks, from one."""

    bits: int
    prefixes: list[tuple[int, int]]

    @property
    def texts(self) -> list[str]:
        if self.bits == 32:
            return [f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.{a & 255}/{length}" for a, length in self.prefixes]
        return [str(ip_network((a, length))) for a, length in self.prefixes]

    @property
    def rows(self) -> bytes:
        """Packed, as `PrefixTable.load` takes them."""
        return b"".join(address.to_bytes(self.bits // 8, "big") + bytes([length]) for address, length in self.prefixes)

    def addresses(self, count: int) -> list[int]:
        """Random addresses in random prefixes."""
        numbers = Numbers(0x5EED_0000_0000_0003)
        order = list(range(len(self.prefixes)))
        numbers.shuffle(order)
        found = []
        for _ in range(count):
            anywhere = numbers.next() << 64 | numbers.next()
            address, length = self.prefixes[order[numbers.below(len(order))]]
            found.append(address | anywhere & (1 << self.bits - length) - 1)
        return found

    def packed(self, addresses: list[int]) -> bytes:
        return b"".join(address.to_bytes(self.bits // 8, "big") for address in addresses)

    def objects(self, addresses: list[int]) -> list[IPv4Address] | list[IPv6Address]:
        return [*map(IPv4Address, addresses)] if self.bits == 32 else [*map(IPv6Address, addresses)]


def internet_v4() -> Table:
    """1,000,000 prefixes."""

    def somewhere(numbers: Numbers) -> int:
        busy = numbers.below(10) < 4
        high = 0x0100 + (numbers.below(8000) * 40_503 % 0xDEFF if busy else numbers.below(0xDEFF))
        return high << 16 | numbers.below(1 << 16)

    return clustered(1_000_000, 32, V4_LENGTHS, somewhere, 0xDFFF_FFFF)


def internet_v6() -> Table:
    """200,000 prefixes."""

    def somewhere(numbers: Numbers) -> int:
        block, length = BLOCKS[numbers.below(8)]
        allocation = numbers.below(1 << 32 - length - 6 + 3 * (length == 16))
        return block << 112 | allocation << 96 | numbers.next() >> 48 << 80

    return clustered(200_000, 128, V6_LENGTHS, somewhere, 0x2C0F << 112 | (1 << 112) - 1)


def overlay() -> Table:
    """10,000 of the 16,384 /24 of 10.64.0.0/10."""
    numbers = Numbers(0x5EED_0000_0000_0002)
    thirds = list(range(16_384))
    numbers.shuffle(thirds)
    return Table(32, sorted((0x0A40_0000 | third << 8, 24) for third in thirds[:10_000]))


def clustered(count: int, bits: int, shares: list[tuple[int, int]], somewhere: Callable[[Numbers], int], last: int) -> Table:
    numbers = Numbers(0x5EED_0000_0000_0001)
    lengths = [length for length, share in shares for _ in range(share)]
    seen: set[tuple[int, int]] = set()
    entries: list[tuple[int, int]] = []
    before, before_length = somewhere(numbers), 16
    while len(entries) < count:
        length = lengths[numbers.below(len(lengths))]
        kind = numbers.below(10)
        if kind < 6:
            length = length if numbers.below(3) == 0 else before_length
            start = before + (1 << bits - before_length)
        elif kind < 8 and entries:
            outer, outer_length = entries[numbers.below(len(entries))]
            length = max(length, outer_length)
            start = outer | (numbers.next() << 64 | numbers.next()) & (1 << bits - outer_length) - 1
        else:
            start = somewhere(numbers)
        start &= -1 << bits - length
        if start > last:
            before, before_length = somewhere(numbers), length
            continue
        before, before_length = start, length
        if (start, length) not in seen:
            seen.add((start, length))
            entries.append((start, length))
    return Table(bits, sorted(entries))
