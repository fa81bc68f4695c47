"""Calls to an etcd cluster: one channel for each endpoint, rotated when a member fails; time-outs everywhere; tokens renewed.

grpcio's own address lists fail TLS host name verification, so each endpoint has its own channel. Channels are kept for life. Only
requests that may safely be sent twice go through `call`: reads, transactions that say what they rest on, leases with chosen ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, NoReturn, TypeVar, cast

import grpc
import grpc.aio

from overlaynet.errors import StoreUnavailableError
from overlaynet.store.etcd import rpc_pb2 as rpc
from overlaynet.store.etcd.refusals import in_plain_words
from overlaynet.store.etcd.settings import EtcdSettings

ResponseT = TypeVar("ResponseT")

REQUEST_TIMEOUT_S = 3.0
"""How long one member has to answer one request."""

TOTAL_TIMEOUT_S = 12.0
"""How long a call may take over all members and retries."""

_OPTIONS = (
    # A member that hangs is found by pings; etcd takes more than one in five seconds for an attack (--grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # An idle watch sends nothing: without this its pings, which find a member that hangs, would stop after two.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
)

RANGE = ("/etcdserverpb.KV/Range", rpc.RangeResponse)
TXN = ("/etcdserverpb.KV/Txn", rpc.TxnResponse)
PUT = ("/etcdserverpb.KV/Put", rpc.PutResponse)
GRANT = ("/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantResponse)
REVOKE = ("/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeResponse)
TIME_TO_LIVE = ("/etcdserverpb.Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveResponse)
KEEP_ALIVE = ("/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveResponse)
WATCH = ("/etcdserverpb.Watch/Watch", rpc.WatchResponse)
AUTHENTICATE = ("/etcdserverpb.Auth/Authenticate", rpc.AuthenticateResponse)

_ELSEWHERE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class EtcdClient:
    """One process's way to a cluster. To be made and used in one event loop."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._at = 0
        self._token = ""
        self._logging_in = asyncio.Lock()

    async def call(self, method: tuple[str, type[ResponseT]], request: Any) -> ResponseT:
        """The cluster's answer. StoreUnavailableError: no member gave one in time, or etcd refuses for good."""
        why = "no answer"
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                for attempt in range(3 * len(self._settings.endpoints) + 2):
                    if attempt > len(self._settings.endpoints):
                        await asyncio.sleep(0.1 * attempt)
                    token = await self._logged_in()
                    try:
                        return await self._once(method, request, token)
                    except grpc.aio.AioRpcError as error:
                        why = self._look_at(error, token)
        except TimeoutError:
            pass
        raise self._unavailable(why)

    @property
    def patience(self) -> int:
        """How many failures in a row may come of one member's end; one more, and the cluster is out of reach."""
        return 2 * len(self._settings.endpoints)

    async def watch(self, creates: Sequence[rpc.WatchCreateRequest]) -> AsyncGenerator[rpc.WatchResponse, None]:
        """The answers of one stream that watches all of `creates`, with a leader required. StoreUnavailableError: it broke."""
        token = await self._logged_in()
        path, response = WATCH
        over = asyncio.Event()

        async def requests() -> AsyncIterator[rpc.WatchRequest]:
            for create in creates:
                yield rpc.WatchRequest(create_request=create)
            await over.wait()

        stub = self._channel().stream_stream(
            path, request_serializer=rpc.WatchRequest.SerializeToString, response_deserializer=response.FromString
        )
        stream = stub(requests(), metadata=(("hasleader", "true"), *self._metadata(token)))
        to_open = len(creates)
        opening_ends_at = asyncio.get_running_loop().time() + REQUEST_TIMEOUT_S
        try:
            while True:
                async with asyncio.timeout_at(opening_ends_at if to_open else None):
                    answer: Any = await stream.read()
                if answer is grpc.aio.EOF:
                    why = "the watch ended"
                    break
                to_open -= answer.created
                yield answer
        except TimeoutError:
            why = f"no watch within {REQUEST_TIMEOUT_S:g} s"
        except grpc.aio.AioRpcError as error:
            why = self._look_at(error, token)
        finally:
            over.set()
            stream.cancel()
        self._rotate()
        raise self._unavailable(why)

    def refused(self, why: str) -> NoReturn:
        """Give up a watch that etcd has refused: without a reason where the token has expired, so a new one is asked for."""
        self._token = ""
        raise self._unavailable(in_plain_words(f"the watch was refused: {why}", self._settings, self._endpoint))

    async def aclose(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close(grace=None)
        self._channels.clear()

    async def _once(self, method: tuple[str, type[ResponseT]], request: Any, token: str) -> ResponseT:
        path, response = method
        kind: Any = response
        channel = self._channel()
        metadata = self._metadata(token)
        if method is KEEP_ALIVE:
            stub = channel.stream_stream(
                path, request_serializer=type(request).SerializeToString, response_deserializer=kind.FromString
            )
            stream = stub(iter([request]), timeout=REQUEST_TIMEOUT_S, metadata=metadata)
            try:
                answer = await stream.read()
            finally:
                stream.cancel()
            if answer is grpc.aio.EOF:
                raise self._unavailable("the keep-alive ended without an answer")
            return cast("ResponseT", answer)
        call = channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=kind.FromString
        )
        return await call(request, timeout=REQUEST_TIMEOUT_S, metadata=metadata)  # type: ignore[no-any-return]

    def _look_at(self, error: grpc.aio.AioRpcError, token: str) -> str:
        """Prepare the next try after `error`, and say why there is one. StoreUnavailableError: there should be none."""
        details = error.details() or error.code().name
        plainly = in_plain_words(details, self._settings, self._endpoint)
        if error.code() is grpc.StatusCode.UNAUTHENTICATED and "invalid auth token" in details:
            if self._token == token:
                self._token = ""
            return plainly
        if error.code() in _ELSEWHERE or "auth: revision" in details:
            if error.code() is not grpc.StatusCode.UNKNOWN:
                self._rotate()
            return plainly
        raise self._unavailable(plainly) from None

    async def _logged_in(self) -> str:
        """The token of this user, or an empty text where there is no user."""
        if not self._settings.username or self._token:
            return self._token
        async with self._logging_in:
            if not self._token:
                request = rpc.AuthenticateRequest(name=self._settings.username, password=self._settings.password)
                for _ in range(2 * len(self._settings.endpoints)):
                    try:
                        self._token = (await self._once(AUTHENTICATE, request, "")).token
                        break
                    except grpc.aio.AioRpcError as error:
                        why = self._look_at(error, "")
                else:
                    raise self._unavailable(why)
        return self._token

    def _metadata(self, token: str) -> tuple[tuple[str, str], ...]:
        return (("token", token),) if token else ()

    @property
    def _endpoint(self) -> str:
        """The endpoint that is called now."""
        return self._settings.endpoints[self._at % len(self._settings.endpoints)]

    def _channel(self) -> grpc.aio.Channel:
        endpoint = self._endpoint
        channel = self._channels.get(endpoint)
        if channel is None:
            tls = self._settings.tls
            if tls is None:
                channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
            else:
                credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
                channel = grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)
            self._channels[endpoint] = channel
        return channel

    def _rotate(self) -> None:
        self._at += 1

    def _unavailable(self, why: str) -> StoreUnavailableError:
        return StoreUnavailableError(self._settings.name, why)
