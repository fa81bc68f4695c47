"""The prefix table from Python against pytricia and py-radix, in ratios of one run."""

from __future__ import annotations

import subprocess
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytricia
import radix
from overlaynet import PrefixTable
from overlaynet.lab.figures import Figure, at_least, at_most

from benches.python import tables
from benches.python.timing import seconds

ADDRESSES = 1_000_000  # as many as the Rust bench looks up
FEW = 20_000  # looked up one by one
ROUNDS = 7
RUST = Path(__file__).parents[1] / "rust" / "target" / "release" / "overlaynet-table-bench"


def figures() -> list[Figure]:
    """The rows of the library's table about lookups and loads from Python."""
    return [*internet(), *packed_v6(), *of_overlay()]


def each(table: Any, keys: Sequence[object]) -> Callable[[], None]:
    """Looks all keys up, one by one."""

    def call() -> None:
        for key in keys:
            table[key]

    return call


def nothing(keys: Sequence[object]) -> Callable[[], None]:
    """What of that is not the lookup."""

    def call() -> None:
        for key in keys:
            key  # noqa: B018

    return call


def singles(ours: PrefixTable[int], peer: Any, forms: dict[str, Sequence[object]]) -> dict[str, tuple[float, float]]:
    """Nanoseconds of a lookup by each form of key: ours, the peer's."""
    calls: dict[str, Callable[[], object]] = {}
    for form, keys in forms.items():
        if [ours[key] for key in keys[:1000]] != [peer[key] for key in keys[:1000]]:  # type: ignore[index]
            raise RuntimeError(f"the peer finds other values by {form}")
        calls |= {f"{form} ours": each(ours, keys), f"{form} peer": each(peer, keys), f"{form} nothing": nothing(keys)}
    best = seconds(calls, ROUNDS)

    def time_ns(form: str, side: str) -> float:
        return (best[f"{form} {side}"] - best[f"{form} nothing"]) / len(forms[form]) * 1e9

    return {form: (time_ns(form, "ours"), time_ns(form, "peer")) for form in forms}


def peer_of(table: tables.Table, texts: list[str]) -> Any:
    """pytricia's, with the same values."""
    peer = pytricia.PyTricia(table.bits)
    for value, text in enumerate(texts, 1):
        peer[text] = value
    return peer


def internet() -> list[Figure]:
    table = tables.internet_v4()
    texts, rows, count = table.texts, table.rows, len(table.prefixes)
    values = array("I", range(1, count + 1))

    def loaded(prefixes: list[str] | bytes, values: Sequence[int] = range(1, count + 1)) -> PrefixTable[int]:
        ours: PrefixTable[int] = PrefixTable(family=4)
        ours.load(prefixes, values)
        return ours

    load = seconds(
        {
            "str": lambda: loaded(texts),
            "packed": lambda: loaded(rows),
            "array": lambda: loaded(rows, values),
            "one by one": lambda: one_by_one(texts),
            "pytricia": lambda: peer_of(table, texts),
        },
        2,
    )
    load = {name: time_s / count * 1e9 for name, time_s in load.items()}
    ours, peer = loaded(rows), peer_of(table, texts)
    addresses = table.addresses(ADDRESSES)
    few = addresses[:FEW]
    forms: dict[str, Sequence[object]] = {
        "str": [str(address) for address in table.objects(few)],
        "bytes": [address.to_bytes(4, "big") for address in few],
        "int": few,
        "IPv4Address": table.objects(few),
    }
    single = singles(ours, peer, forms)
    packed, numbers = table.packed(addresses), array("I", addresses)
    writable = bytearray(packed)
    sample = [ours[address] for address in addresses[:1000]]
    if ours.lookup_many(packed)[:1000].tolist() != sample or ours.lookup_many(numbers)[:1000].tolist() != sample:
        raise RuntimeError("a batch finds other values than single lookups")
    core_ns = core(0)
    batch = per_address(
        {
            "values": lambda: ours.lookup_many(packed),
            "slots": lambda: ours.lookup_slots(packed),
            "bytearray": lambda: ours.lookup_many(writable),
            "numbers": lambda: ours.lookup_many(numbers),
        }
    )
    core_ns = None if core_ns is None else min(core_ns, core(0) or core_ns)
    best_peer = min(theirs for _, theirs in single.values())
    found = [
        Figure(f"v4: load from Python, {name}", time_ns, "ns a prefix")
        for name, time_ns in (
            *(("list of str", load["str"]), ("packed buffer", load["packed"]), ("packed buffer, array of values", load["array"])),
            *(("insertions one by one", load["one by one"]), ("pytricia", load["pytricia"])),
        )
    ]
    found += [
        Figure("v4: load from Python, list of str: pytricia / ours", load["pytricia"] / load["str"], "x", at_least(5)),
        Figure("v4: load from Python, packed buffer: pytricia / ours", load["pytricia"] / load["packed"], "x", at_least(18)),
    ]
    for form, (mine, theirs) in single.items():
        found += [
            Figure(f"v4: one lookup from Python, {form}", mine, "ns"),
            Figure(f"v4: one lookup from Python, {form}: pytricia", theirs, "ns"),
            Figure(f"v4: one lookup from Python, {form}: pytricia / ours", theirs / mine, "x", at_least(12)),
        ]
    search = each(Searched(radix_of(texts)), forms["str"])
    time_s = seconds({"radix": search, "nothing": nothing(forms["str"])}, 3)
    found.append(Figure("v4: one lookup from Python, str: py-radix", (time_s["radix"] - time_s["nothing"]) / FEW * 1e9, "ns"))
    found += [
        Figure("v4: batch lookup from Python, packed bytes, values", batch["values"], "ns"),
        Figure("v4: batch lookup from Python, packed bytes, slots", batch["slots"], "ns"),
        Figure("v4: batch lookup from Python, packed bytearray, values", batch["bytearray"], "ns"),
        Figure("v4: batch lookup from Python, array of u32, values", batch["numbers"], "ns"),
        Figure("v4: batch lookup from Python: pytricia's best form / ours", best_peer / batch["values"], "x", at_least(180)),
    ]
    if core_ns is not None:
        found += [
            Figure("v4: batch lookup in Rust, plain build, slots", core_ns, "ns"),
            Figure("v4: batch lookup, slots: added by Python", (batch["slots"] / core_ns - 1) * 100, "%", at_most(10)),
            Figure("v4: batch lookup, values: added by Python", (batch["values"] / core_ns - 1) * 100, "%"),
        ]
    return found


class Searched:
    """py-radix, asked as a mapping is."""

    def __init__(self, tree: Any) -> None:
        self.search = tree.search_best

    def __getitem__(self, key: object) -> object:
        return self.search(key).data["value"]


def radix_of(texts: list[str]) -> Any:
    tree = radix.Radix()
    for value, text in enumerate(texts, 1):
        tree.add(text).data["value"] = value
    return tree


def one_by_one(texts: list[str]) -> PrefixTable[int]:
    ours: PrefixTable[int] = PrefixTable(family=4)
    for value, text in enumerate(texts, 1):
        ours[text] = value
    return ours


def packed_v6() -> list[Figure]:
    table = tables.internet_v6()
    ours: PrefixTable[int] = PrefixTable(family=6)
    ours.load(table.rows, range(1, len(table.prefixes) + 1))
    peer = peer_of(table, table.texts)
    addresses = table.addresses(ADDRESSES)
    few = addresses[:FEW]
    forms: dict[str, Sequence[object]] = {
        "str": [str(address) for address in table.objects(few)],
        "bytes": [address.to_bytes(16, "big") for address in few],
        "IPv6Address": table.objects(few),
    }
    single = singles(ours, peer, forms)
    packed = table.packed(addresses)
    batch = per_address({"values": lambda: ours.lookup_many(packed), "slots": lambda: ours.lookup_slots(packed)})
    best_peer = min(theirs for _, theirs in single.values())
    found = []
    for form, (mine, theirs) in single.items():
        found += [
            Figure(f"v6: one lookup from Python, {form}", mine, "ns"),
            Figure(f"v6: one lookup from Python, {form}: pytricia / ours", theirs / mine, "x"),
        ]
    return [
        *found,
        Figure("v6: batch lookup from Python, packed, values", batch["values"], "ns"),
        Figure("v6: batch lookup from Python, packed, slots", batch["slots"], "ns"),
        Figure(
            "v6: batch lookup from Python, packed: pytricia's best form / ours", best_peer / batch["values"], "x", at_least(40)
        ),
    ]


def of_overlay() -> list[Figure]:
    table = tables.overlay()
    ours: PrefixTable[int] = PrefixTable(family=4)
    ours.load(table.rows, range(1, len(table.prefixes) + 1))
    addresses = table.addresses(ADDRESSES)
    texts = [str(address) for address in table.objects(addresses[:FEW])]
    single = singles(ours, peer_of(table, table.texts), {"str": texts})
    mine, theirs = single["str"]
    packed = table.packed(addresses)
    batch = per_address({"values": lambda: ours.lookup_many(packed)})
    return [
        Figure("overlay: one lookup from Python, str", mine, "ns"),
        Figure("overlay: one lookup from Python, str: pytricia / ours", theirs / mine, "x", at_least(4)),
        Figure("overlay: batch lookup from Python, packed, values", batch["values"], "ns"),
    ]


def per_address(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    return {name: time_s / ADDRESSES * 1e9 for name, time_s in seconds(calls, 15).items()}


def core(which: int) -> float | None:
    """Nanoseconds of a batch lookup in Rust alone, of the same table and addresses; None: it was not built."""
    if not RUST.exists():
        return None
    said = subprocess.run([RUST, "--ours"], check=True, capture_output=True, text=True)
    return float(said.stdout.split()[which])
