"""A TCP proxy on loopback that a test cuts, holds up or lets lose answers."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType


class TcpProxy:
    """Passes bytes between its clients and one server until told otherwise. Use as a context; `address` is `HOST:PORT`."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = host, int(port)
        self._links: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._losing = False
        self._cut_after: int | None = None
        self.address = ""
        self.cuts = 0

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    def lead_to(self, target: str) -> None:
        """Serve new connections by another server, and end those that there are."""
        host, port = target.rsplit(":", 1)
        self._target = host, int(port)
        self.cut()

    def cut(self) -> None:
        """End every connection now."""
        for link in self._links:
            self.cuts += 1
            link.cancel()

    def cut_every(self, amount_bytes: int | None) -> None:
        """End each connection once it has brought that much from the server. None: no longer."""
        self._cut_after = amount_bytes

    def hold(self) -> None:
        """Take connections and pass nothing on, in either direction, until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Pass everything on again."""
        self._open.set()

    def lose_answer(self) -> None:
        """Pass the next request on, drop what the server answers, and end the connection."""
        self._losing = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        up_writer: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            directions = {
                asyncio.create_task(self._copy(reader, up_writer)),
                asyncio.create_task(self._bring(up_reader, writer)),
            }
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in directions:
                    one.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            for end in (writer, up_writer):
                if end is not None:
                    end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()

    async def _bring(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        brought = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                if self._losing:
                    # The first bytes may be an acknowledgement of HTTP/2's: by the end of the wait the answer has been given.
                    await asyncio.sleep(0.3)
                    self._losing = False
                    self.cuts += 1
                    return
                brought += len(data)
                if self._cut_after is not None and brought > self._cut_after:
                    self.cuts += 1
                    writer.write(data[: len(data) // 2])
                    return
                writer.write(data)
                await writer.drain()
