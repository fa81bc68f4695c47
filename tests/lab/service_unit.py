"""The service unit that the project ships, read as systemd reads it, and a daemon started by what it says."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import overlaynet
from overlaynet.lab.daemons import program

SANDBOX = Path(__file__).with_name("sandbox.py")
UNIT = Path(str(files("overlaynet") / "data" / "overlaynet.service"))
SYSUSERS = Path(str(files("overlaynet") / "data" / "overlaynet.sysusers"))
TUN_MODE = 0o666
"""The mode that udev's rules give to /dev/net/tun (50-udev-default.rules)."""


@dataclass(frozen=True)
class ServiceUnit:
    """The settings of the unit's [Service] section; a key may be given several times."""

    settings: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path = UNIT) -> ServiceUnit:
        section, found = "", []
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line
            elif section == "[Service]" and line and not line.startswith("#"):
                key, _, value = line.partition("=")
                found.append((key, value))
        return cls(tuple(found))

    def one(self, key: str) -> str:
        (value,) = (value for name, value in self.settings if name == key)
        return value

    def words(self, key: str) -> list[str]:
        return [word for name, value in self.settings if name == key for word in value.split()]

    def capabilities(self, key: str) -> list[str]:
        return [word.removeprefix("CAP_").lower() for word in self.words(key)]

    @property
    def program(self) -> list[str]:
        """ExecStart, with the program where it is installed here."""
        path, *arguments = shlex.split(self.one("ExecStart"))
        return [program(Path(path).name), *arguments]


def account(folder: Path, user: str) -> tuple[int, int]:
    """The numbers of the unit's user, as systemd-sysusers makes it from the file that is shipped, in a system of its own."""
    (folder / "etc").mkdir(parents=True)
    subprocess.run(["systemd-sysusers", f"--root={folder}", str(SYSUSERS)], check=True, capture_output=True)
    (line,) = (line for line in (folder / "etc" / "passwd").read_text().splitlines() if line.startswith(f"{user}:"))
    uid, gid = line.split(":")[2:4]
    return int(uid), int(gid)


def allowed_calls(unit: ServiceUnit) -> set[str]:
    """The system calls of SystemCallFilter, as systemd-analyze lists them."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True).stdout
    groups: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = set()
        elif line.startswith("    ") and not line.strip().startswith("#"):
            groups[name].add(line.strip())

    def flat(word: str) -> set[str]:
        return set().union(*(flat(inner) for inner in groups[word])) if word.startswith("@") else {word}

    # Always allowed, whatever the filter says (systemd.exec(5)).
    found = flat("@default")
    return found.union(*(flat(word) for word in unit.words("SystemCallFilter")))


def as_service(
    unit: ServiceUnit,
    numbers: tuple[int, int],
    binds: dict[str, str],
    *,
    before: tuple[str, ...] = (),
    capabilities: bool = True,
    tun_mode: int | None = TUN_MODE,
) -> list[str]:
    """The command that runs the unit's program as the unit says, with the folders `binds` (target to source) beside its own."""
    prefix = Path(sys.prefix)
    plan = {
        "uid": numbers[0],
        "gid": numbers[1],
        "run": unit.words("RuntimeDirectory"),
        "run_mode": unit.one("RuntimeDirectoryMode"),
        "state": unit.words("StateDirectory"),
        "state_mode": unit.one("StateDirectoryMode"),
        "capabilities": unit.capabilities("AmbientCapabilities") if capabilities else [],
        "bounding": unit.capabilities("CapabilityBoundingSet") if capabilities else [],
        "no_new_privileges": unit.one("NoNewPrivileges") == "yes",
        "read_only": unit.one("ProtectSystem") == "strict",
        "no_executable_memory": unit.one("MemoryDenyWriteExecute") == "yes",
        "calls": sorted(allowed_calls(unit)),
        "tun_mode": None if tun_mode is None else f"{tun_mode:o}",
        "binds": binds,
        "ways": [str(way) for way in (prefix, Path(sys.base_prefix), Path(overlaynet.__file__).parent)],
    }
    inside = ["unshare", "--mount", "--propagation", "private", sys.executable, "-I", str(SANDBOX), json.dumps(plan)]
    return [*inside, *before, *unit.program]
