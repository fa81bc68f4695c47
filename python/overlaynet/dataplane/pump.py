"""The packet engine as the daemon drives it: a configuration in, counters out. Packets never come here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from overlaynet.errors import DataplaneError
from overlaynet.model.dataplane import OFFLOADS, TAP, PumpConfig, SourceCheck

if TYPE_CHECKING:
    from overlaynet._core import Pump


class UdpEngine:
    """The engine of the `udp` backend: a TUN device, a UDP socket, and a thread between them.

    `offloads` are those that it may use, `source_check` is how far the sources of incoming packets must fit.
    """

    def __init__(self, offloads: Sequence[str] = OFFLOADS, source_check: SourceCheck = "strict") -> None:
        self._offloads = tuple(offloads)
        self._source_check = source_check
        self._pump: Pump | None = None
        self._config: PumpConfig | None = None

    def apply(self, config: PumpConfig | None) -> None:
        """Bring the engine to `config`; None: stop it. While link, socket and MTU stay the same, only its tables change, and no
        packet is lost. DataplaneError: it could not be done, and the engine is stopped.
        """
        if self._pump is not None and (config is None or not self._carries(config)):
            pump, self._pump = self._pump, None
            pump.stop()
        if config is None:
            return
        if self._pump is None:
            from overlaynet._core import Pump

            bind = [(str(address), config.port) for address in config.listen]
            spread = config.vteps is not None
            tap = config.tap if TAP in self._offloads else None
            offloads = [name for name in self._offloads if name != TAP]
            pump = Pump(tun=config.link, bind=bind, mtu=config.mtu, offloads=offloads, spread=spread, tap=tap)
            _configure(pump, config, self._source_check)
            pump.start()
            self._pump = pump
        else:
            try:
                _configure(self._pump, config, self._source_check)
            except DataplaneError:
                self.apply(None)
                raise
        self._config = config

    def counters(self) -> dict[str, object]:
        """Packets, bytes and drops so far, and how it stands with each offload; nothing while the engine is stopped."""
        return {} if self._pump is None else {**self._pump.counters(), "offloads": self._pump.offloads()}

    @property
    def config(self) -> PumpConfig | None:
        """What the engine runs with; None while it is stopped."""
        return None if self._pump is None else self._config

    @property
    def failure(self) -> str | None:
        """Why the engine ended by itself, or None."""
        return None if self._pump is None else self._pump.failure

    def _carries(self, config: PumpConfig) -> bool:
        """Whether the running engine can take `config` without being made anew."""
        before = self._config
        return (
            before is not None
            and self.failure is None
            and (before.link, before.listen, before.port, before.mtu) == (config.link, config.listen, config.port, config.mtu)
            and (before.vteps is None, before.tap) == (config.vteps is None, config.tap)
        )


def _configure(pump: Pump, config: PumpConfig, source_check: SourceCheck) -> None:
    vteps = config.vteps
    pump.configure(
        local=[str(prefix) for prefix in config.local],
        addresses=[str(address) for address in config.addresses],
        peers=[
            (
                [str(prefix) for prefix in peer.subnets],
                str(peer.address),
                peer.port,
                None if peer.vtep is None else str(peer.vtep),
            )
            for peer in config.peers
        ],
        vteps=None if vteps is None else (vteps.vni, str(vteps.v4), str(vteps.v6)),
        source_check=source_check,
    )
