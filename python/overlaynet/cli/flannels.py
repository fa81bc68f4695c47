"""flannel's flags for what overlaynet does not do: refused by name where they ask for it, passed over where they turn it off.

Who comes from flannel has some of them in a unit file or in the environment. A daemon that went on without a word would leave
out what they ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from overlaynet.errors import ConfigError

_MASQUERADE: Final = "overlaynet does not masquerade: leave it out, and let the container runtime or a rule of your own do it"
_FIREWALL: Final = "overlaynet writes no iptables or nftables rules: leave it out"
_KUBERNETES: Final = "overlaynet has no Kubernetes store: leave it out, and keep leases in etcd (--etcd-endpoints)"
_LOG: Final = "is not known here: use --log-level debug"

_NOT_HERE: Final[Mapping[str, str]] = {
    "ip-masq": _MASQUERADE,
    "ip-masq-fully-random-disable": _MASQUERADE,
    "iptables-resync": _FIREWALL,
    "iptables-forward-rules": _FIREWALL,
    "ip-blackhole-route": "packets to subnets that nobody has end here without one: leave it out",
    "kube-subnet-mgr": _KUBERNETES,
    "kube-api-url": _KUBERNETES,
    "kube-annotation-prefix": _KUBERNETES,
    "kubeconfig-file": _KUBERNETES,
    "net-config-path": _KUBERNETES,
    "set-node-network-unavailable": _KUBERNETES,
    "vmodule": _LOG,
    "log_backtrace_at": _LOG,
}

_OFF: Final = frozenset({"", "false", "f", "0"})


def without_flannels(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], tuple[str, ...]]:
    """The arguments without those of flannel's flags that turn off what is not done here, and warnings about the environment.

    ConfigError: one asks for something that is not done here.
    """
    ours: list[str] = []
    for at, argument in enumerate(arguments):
        if argument == "--":
            ours += arguments[at:]
            break
        name, given, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in _NOT_HERE:
            ours.append(argument)
        elif not given or value.lower() not in _OFF:
            raise ConfigError(f"--{name}", value if given else "true", _NOT_HERE[name])
    warnings = []
    for name, why in _NOT_HERE.items():
        variable = f"FLANNELD_{name.upper().replace('-', '_')}"
        value = environment.get(variable, "")
        if value.lower() not in _OFF:
            warnings.append(f"{variable}={value} is ignored: {why}")
    return ours, tuple(warnings)
