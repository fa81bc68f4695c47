"""The tables of README and docs that hold measured figures, written from `benches/results/` and by nothing else.

python benches/readme_tables.py          writes every table between its markers
python benches/readme_tables.py --check  ends with 1 if one is not what the results say
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benches" / "results"

PATHS = ("host-gw", "vxlan", "vxlan-user", "udp", "udp-plain")
LINKS = ("veth", "wire")


def values(report: Path) -> dict[str, float]:
    """Each figure's value."""
    return {row["figure"]: row["value"] for row in json.loads(report.read_text())["rows"]}


def paths_table() -> str:
    """What each path carries, and its ratio to the kernel's vxlan."""
    report = RESULTS / "data-plane.json"
    machine = json.loads(report.read_text())["machine"]
    found = values(report)
    heads = [
        "path",
        "TCP, Gbit/s, veth / wire",
        "to vxlan",
        "64-byte packets, kpps, veth / wire",
        "to vxlan",
        "RTT, us, veth",
        "CPU, s/GB, veth",
    ]
    lines = [row(heads), "|" + "---|" * len(heads)]
    for path in PATHS:
        if f"veth, {path}: TCP, one stream" not in found:
            continue

        def both(measure: str, path: str = path) -> str:
            return " / ".join(f"{found[f'{link}, {path}: {measure}']:.3g}" for link in LINKS)

        def ratio(measure: str, path: str = path) -> str:
            if path == "vxlan":
                return "1"
            return " / ".join(f"{found[f'{link}, {path} / vxlan: {measure}']:.2f}" for link in LINKS)

        tcp, small = "TCP, one stream", "64-byte UDP delivered"
        rtt = found[f"veth, {path}: RTT median, one every 0.5 ms"]
        cpu = found[f"veth, {path}: CPU of both hosts and pods"]
        lines.append(row([f"`{path}`", both(tcp), ratio(tcp), both(small), ratio(small), f"{rtt:.0f}", f"{cpu:.2f}"]))
    return "\n".join([*lines, "", f"On {machine}."])


def offloads_table() -> str:
    """What `udp` without one offload does, as parts of what it does with all."""
    report = RESULTS / "offloads.json"
    machine = json.loads(report.read_text())["machine"]
    found = values(report)
    measures = ("TCP, one stream", "TCP, four streams", "64-byte UDP delivered", "RTT median, one every 0.5 ms")
    lines = [row(["without", *measures]), "|" + "---|" * (len(measures) + 1)]
    for path in sorted({figure.split()[1] for figure in found if figure.startswith("veth, udp-no-") and " / udp: " in figure}):
        cells = [f"{found[f'veth, {path} / udp: {measure}']:.2f}" for measure in measures]
        lines.append(row([f"`{path.removeprefix('udp-no-')}`", *cells]))
    return "\n".join([*lines, "", f"Parts of `udp` with every offload, veth, medians of the rounds' ratios. On {machine}."])


def healing_table() -> str:
    """Each cause with its healing times and losses."""
    report = RESULTS / "healing.json"
    found = values(report)
    lines = [row(["backend", "cause", "healed, median, ms", "longest, ms", "datagrams lost, median"]), "|" + "---|" * 5]
    for figure in found:
        name, _, measure = figure.rpartition(": healed, ")
        if measure != "median" or ": " not in name:
            continue
        backend, _, cause = name.partition(": ")
        longest = next(value for other, value in found.items() if other.startswith(f"{name}: healed, longest of "))
        lost = next(value for other, value in found.items() if other.startswith(f"{name}: datagrams lost "))
        lines.append(row([f"`{backend}`", cause, f"{found[figure]:.0f}", f"{longest:.0f}", f"{lost:.0f}"]))
    every = [found[f"every cause: healed, {what}"] for what in ("median", "99th percentile")]
    said = f"Over every cause: {every[0]:.0f} ms at the median, {every[1]:.0f} ms at the 99th percentile. On {machine(report)}."
    return "\n".join([*lines, "", said])


def breaking_table() -> str:
    """Each backend's ten minutes."""
    report = RESULTS / "reliability.json"
    rows = json.loads(report.read_text())["rows"]
    backends = list(dict.fromkeys(one["figure"].partition(": ")[0] for one in rows))
    found = {one["figure"]: one for one in rows}
    lines = [row(["", *(f"`{backend}`" for backend in backends)]), "|" + "---|" * (len(backends) + 1)]
    for measure in dict.fromkeys(one["figure"].partition(": ")[2] for one in rows):
        several = [found.get(f"{backend}: {measure}") for backend in backends]
        unit = next(one["unit"] for one in several if one is not None)
        name = f"{measure}, {unit}" if unit and unit not in measure else measure
        lines.append(row([name, *("-" if one is None else f"{one['value']:g}" for one in several)]))
    return "\n".join([*lines, "", f"On {machine(report)}."])


def control_table() -> str:
    """What has a target, or is there at the largest size."""
    report = RESULTS / "control-plane.json"
    rows = json.loads(report.read_text())["rows"]
    lines = [row(["figure", "value", "target", ""]), "|" + "---|" * 4]
    for one in rows:
        if one["target"] is not None or one["figure"].startswith(("10000 peers: ", "no peers: ")):
            met = "" if one["met"] is None else "met" if one["met"] else "**missed**"
            lines.append(row([one["figure"], f"{one['value']:g} {one['unit']}", one["target"] or "", met]))
    return "\n".join([*lines, "", f"On {machine(report)}."])


def scale_table() -> str:
    """What grows with the number of hosts: a column for the network of each power of ten from ten on, and for the largest."""
    report = RESULTS / "simulation.json"
    rows = json.loads(report.read_text())["rows"]
    found = {one["figure"]: one for one in rows}
    sizes = [int(name.split()[0]) for name in found if name.endswith(" hosts: start, until each reaches each")]
    shown = [size for size in sizes if size == sizes[-1] or (size >= 10 and set(str(size)[1:]) == {"0"} and str(size)[0] == "1")]
    lines = [row(["hosts", *(f"{size:,}" for size in shown)]), "|" + "---|" * (len(shown) + 1)]
    for name in found:
        size, _, measure = name.partition(" hosts: ")
        if measure and int(size) == sizes[-1]:
            unit = found[name]["unit"]
            cells = [found.get(f"{one} hosts: {measure}") for one in shown]
            lines.append(row([f"{measure}, {unit}", *("-" if cell is None else f"{cell['value']:.3g}" for cell in cells)]))
    spent = next(one for one in rows if one["figure"].startswith("processor time of the network of "))
    verdict = f"The target, {spent['target']} {spent['unit']}, is {'met' if spent['met'] else '**missed**'}."
    return "\n".join([*lines, "", f"{spent['figure'].capitalize()}: {spent['value']:.0f} s. {verdict} On {machine(report)}."])


def machine(report: Path) -> str:
    """What the figures hang on."""
    return str(json.loads(report.read_text())["machine"])


def library_table() -> str:
    """What has a target of the library's figures, and whether it is met."""
    report = json.loads((RESULTS / "library.json").read_text())
    lines = [row(["figure", "value", "target", "met"]), "|" + "---|" * 4]
    for found in report["rows"]:
        if found["target"] is not None:
            value = f"{found['value']:g} {found['unit']}"
            lines.append(row([found["figure"], value, found["target"], "yes" if found["met"] else "**no**"]))
    return "\n".join([*lines, "", f"By `{report['command']}`, on {report['machine']}."])


def row(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "data-plane": (ROOT / "README.md", paths_table),
    "healing": (ROOT / "docs" / "reliability.md", healing_table),
    "breaking": (ROOT / "docs" / "reliability.md", breaking_table),
    "control-plane": (ROOT / "docs" / "reliability.md", control_table),
    "scale": (ROOT / "docs" / "scale.md", scale_table),
    "offload-matrix": (ROOT / "docs" / "performance.md", offloads_table),
    "library": (ROOT / "docs" / "library.md", library_table),
}
"""Each table's name in its markers, the page, and what writes it."""


def with_table(page: str, name: str, table: str) -> str:
    """The page with the table between its markers. LookupError: they are not there."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise LookupError(f"{begin} and {end} must be there once each")
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n{table}\n{end}{after}"


def main(*, check: bool) -> int:
    """Write or check every table; the exit code."""
    stale = 0
    for name, (path, table) in TABLES.items():
        page = path.read_text()
        try:
            text = table()
        except FileNotFoundError as missing:
            text = f"Not measured yet: there is no `{Path(missing.filename).name}`."
        wanted = with_table(page, name, text)
        if wanted == page:
            continue
        if check:
            print(f"{path.name}: the table {name} is not what benches/results say: python benches/readme_tables.py")
            stale = 1
        else:
            path.write_text(wanted)
    return stale


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
