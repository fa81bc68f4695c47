"""What systemd does around a service, as far as tests can do it without systemd: directories, a read-only system, capabilities.

Run as root inside a mount namespace of its own (unshare(1)): `sandbox.py PLAN COMMAND...`, with the plan as JSON. It ends in
`setpriv`, which drops all but what the plan grants and becomes the command.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

_PR_SET_MDWE = 65
_PR_MDWE_REFUSE_EXEC_GAIN = 1
_API = ("/proc", "/sys", "/dev")
_SECCOMP = "libseccomp.so.2"
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_NO_NEW_PRIVILEGES = 3


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def open_way(path: Path, hold: Path) -> None:
    """Let everybody reach `path`, which may lie in a folder that only root may search (an interpreter below /root, say).

    Such a folder is replaced, in this mount namespace, by an open one in which only the next step of the way is to be found.
    """
    for folder in [*reversed(path.parents)]:
        if folder.stat().st_mode & stat.S_IXOTH:
            continue
        step = path.parts[len(folder.parts)]
        held = hold / str(len(list(hold.iterdir())))
        held.mkdir()
        mount("--bind", str(folder), str(held))
        mount("-t", "tmpfs", "-o", "mode=755", "none", str(folder))
        there, here = held / step, folder / step
        here.mkdir() if there.is_dir() else here.touch()
        mount("--bind", str(there), str(here))


def directories(root: Path, names: list[str], mode: int, uid: int, gid: int) -> None:
    mount("-t", "tmpfs", "-o", "mode=755", "none", str(root))
    for name in names:
        (root / name).mkdir()
        (root / name).chmod(mode)
        os.chown(root / name, uid, gid)


def read_only(writable: list[Path]) -> None:
    """Every mount but the kernel's own and `writable` (ProtectSystem=strict in systemd.exec(5))."""
    for folder in writable:
        mount("--bind", str(folder), str(folder))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split(" ")[4].encode().decode("unicode_escape"))
        spared = [Path(text) for text in _API] + writable
        if not any(point.is_relative_to(one) for one in spared):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(point)], check=False, stderr=subprocess.DEVNULL)


def refuse_executable_memory() -> None:
    """MemoryDenyWriteExecute=, by the kernel's own means (prctl(2), since Linux 6.3)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0 and ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), "PR_SET_MDWE")


def forbid_calls_but(names: list[str]) -> None:
    """SystemCallFilter=, by the library that systemd takes for it (seccomp_init(3)): a forbidden call ends the process by SIGSYS.

    systemd would fail the call instead; an end is harder to overlook.
    """
    seccomp = ctypes.CDLL(_SECCOMP)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_KILL_PROCESS)))
    # That attribute is on if nothing is said, and it is the unit's to say.
    done = [seccomp.seccomp_attr_set(rules, _NO_NEW_PRIVILEGES, 0)]
    numbers = [seccomp.seccomp_syscall_resolve_name(name.encode()) for name in names]
    # A negative number: no such call on this architecture.
    done += [seccomp.seccomp_rule_add(rules, ctypes.c_uint32(_ALLOW), number, 0) for number in numbers if number >= 0]
    done.append(seccomp.seccomp_load(rules))
    if any(done):
        raise OSError(-min(done), "seccomp")


def main(plan: dict[str, Any], command: list[str]) -> None:
    uid, gid = int(plan["uid"]), int(plan["gid"])
    # Sources first: /run and /var/lib are about to be covered.
    sources = {target: os.open(source, os.O_PATH) for target, source in plan["binds"].items()}
    ways = [Path(text) for text in plan["ways"]]
    directories(Path("/run"), plan["run"], int(plan["run_mode"], 8), uid, gid)
    directories(Path("/var/lib"), plan["state"], int(plan["state_mode"], 8), uid, gid)
    hold = Path("/run/.hold")
    hold.mkdir(mode=0o700)
    for way in ways:
        open_way(way, hold)
    for target, descriptor in sources.items():
        Path(target).mkdir()
        # Not by its path, which is covered by now.
        mount("--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{descriptor}", target)
    if plan["tun_mode"] is not None:
        mount("-t", "tmpfs", "-o", "mode=755", "none", "/dev/net")
        os.mknod("/dev/net/tun", stat.S_IFCHR, os.makedev(10, 200))
        Path("/dev/net/tun").chmod(int(plan["tun_mode"], 8))
    if plan["read_only"]:
        read_only([Path(f"/run/{name}") for name in plan["run"]] + [Path(f"/var/lib/{name}") for name in plan["state"]])
        for target in plan["binds"]:
            mount("-o", "remount,bind,rw", target)
    if plan["no_executable_memory"]:
        refuse_executable_memory()
    forbid_calls_but(plan["calls"])
    granted = [f"+{name}" for name in plan["capabilities"]]
    bounded = [f"+{name}" for name in plan["bounding"]]
    os.chdir("/")
    os.execvp(  # noqa: S606  # an argument list, as everywhere
        "setpriv",
        [
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
            *(["--no-new-privs"] if plan["no_new_privileges"] else []),
            *("--inh-caps", ",".join(["-all", *granted]), "--ambient-caps", ",".join(["-all", *granted])),
            *("--bounding-set", ",".join(["-all", *bounded])),
            *command,
        ],
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
