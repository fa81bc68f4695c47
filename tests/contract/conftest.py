"""One etcd for all contract tests, with a prefix of each test's own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from overlaynet.store.etcd.settings import parse_etcd_url
from overlaynet.store.etcd.store import EtcdStore

from tests.contract.etcd_server import EtcdServer, etcd_server


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    progress = ("--experimental-watch-progress-notify-interval", "1s")
    with etcd_server(tmp_path_factory.mktemp("etcd"), *progress, fast=True) as server:
        yield server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A prefix in etcd that is this test's own."""
    return "/" + re.sub(r"[^A-Za-z0-9_]+", "-", request.node.name).strip("-")


@pytest_asyncio.fixture
async def store(etcd: EtcdServer, prefix: str) -> AsyncIterator[EtcdStore]:
    """A store under the test's prefix."""
    made = EtcdStore(parse_etcd_url(f"etcd://{etcd.address}{prefix}"))
    yield made
    await made.aclose()
