"""What is the SQLite file's own: where it stands, boots, damage, full disks, and how soon watchers hear."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from overlaynet.errors import ConfigError, ConflictError, StoreDataError, StoreUnavailableError
from overlaynet.model.lease import HostId
from overlaynet.model.snapshot import LeaseGone, LeasePut, Unreadable
from overlaynet.store import sqlite_file
from overlaynet.store.open import open_store
from overlaynet.store.sqlite import SqliteStore, boot_id

from tests.contract.store_worlds import TTL_S, A, B, Clock, Watcher, claim

KEY = "10.1.1.0-24"
Opener = Callable[..., SqliteStore]


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    stores: list[SqliteStore] = []

    def make(path: Path = tmp_path / "store.db", clock: Callable[[], float] | None = None, boot: str = "boot-1") -> SqliteStore:
        stores.append(SqliteStore(path, clock=clock or Clock(), boot=lambda: boot))
        return stores[-1]

    yield make
    for store in stores:
        await store.aclose()


async def test_lease_of_another_boot_keeps_its_owner_and_gets_one_full_ttl(opened: Opener) -> None:
    grant = await claim(opened(clock=Clock(90_000.0)), A, KEY, 1)
    clock = Clock(5.0)
    after = opened(clock=clock, boot="boot-2")
    assert (await after.load()).leases == (grant.lease,)
    assert await after.remaining([grant.lease]) == [TTL_S]
    clock.now += TTL_S - 1
    again = opened(clock=clock, boot="boot-2")
    with pytest.raises(ConflictError):
        await claim(again, B, KEY, 2)
    clock.now += 1
    assert (await again.load()).leases == ()


async def test_lease_of_another_boot_is_not_ended_by_a_larger_clock(opened: Opener) -> None:
    grant = await claim(opened(clock=Clock(5.0)), A, KEY, 1)
    after = opened(clock=Clock(90_000.0), boot="boot-2")
    with pytest.raises(ConflictError):
        await claim(after, B, KEY, 2)
    assert (await after.load()).leases == (grant.lease,)


async def test_holder_goes_on_renewing_after_a_reboot(opened: Opener) -> None:
    grant = await claim(opened(), A, KEY, 1)
    clock = Clock(1.0)
    after = opened(clock=clock, boot="boot-2")
    await after.renew(grant)
    clock.now += TTL_S - 1
    assert len((await after.load()).leases) == 1


async def test_file_is_private_and_its_folder_is_made(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.db"
    await opened(path).load()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {one.name for one in path.parent.iterdir()} == {"store.db", "store.db-journal"}


async def test_settings_of_the_connection_are_those_that_survive_a_crash(opened: Opener) -> None:
    store = opened()
    await store.load()
    assert store._connection is not None
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (3,)


async def test_file_that_is_no_database_is_left_as_it_is(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database, but long enough to look at\n" * 50)
    before = path.read_bytes()
    with pytest.raises(StoreDataError):
        await opened(path).load()
    assert path.read_bytes() == before


async def test_database_of_another_program_is_refused(opened: Opener, tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "store.db")
    db.execute("CREATE TABLE photos (name)")
    db.commit()
    db.close()
    with pytest.raises(StoreDataError, match="another program"):
        await opened().load()


async def test_newer_schema_is_refused(opened: Opener, tmp_path: Path) -> None:
    await opened().load()
    db = sqlite3.connect(tmp_path / "store.db")
    db.execute(f"PRAGMA user_version = {sqlite_file.SCHEMA_VERSION + 1}")
    db.commit()
    db.close()
    with pytest.raises(StoreDataError, match="schema version"):
        await opened().load()


async def test_place_that_cannot_be_is_a_config_error(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "store.db"):
        with pytest.raises(ConfigError):
            await opened(path).load()


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


MOUNTS = r"""22 1 0:20 / /proc rw,relatime shared:5 - proc proc rw
30 1 0:28 /@ / rw,relatime shared:1 - btrfs /dev/sda2 rw,subvol=/@
31 30 0:28 /@srv /srv rw,relatime - btrfs /dev/sda2 rw,subvol=/@srv
40 30 0:50 / /mnt/far rw,relatime shared:9 master:1 - nfs4 server:/export rw
41 40 8:3 / /mnt/far/near rw,relatime - ext4 /dev/sda3 rw
42 30 0:51 / /mnt/with\040space rw,relatime - fuse.sshfs there:/ rw
43 30 0:52 / /srv/over rw - ext4 /dev/sda4 rw
44 43 0:53 / /srv/over rw - cifs //there/share rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/proc/sys", "proc"),
        ("/var/lib/overlaynet", "btrfs"),
        ("/srv", "btrfs"),
        ("/mnt/far/stores", "nfs4"),
        ("/mnt/farther", "btrfs"),
        ("/mnt/far/near/stores", "ext4"),
        ("/mnt/with space", "fuse.sshfs"),
        ("/srv/over/stores", "cifs"),
    ],
)
def test_file_system_is_that_of_the_longest_and_last_mount_point(folder: str, kind: str) -> None:
    assert sqlite_file.file_system(Path(folder), MOUNTS) == kind


async def test_network_file_system_is_refused(opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "file_system", lambda folder, mounts: "nfs4")
    with pytest.raises(ConfigError, match=r"network file system \(nfs4\)"):
        await opened().load()
    assert everything_in(tmp_path) == []


async def test_store_that_is_only_read_is_not_made(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "folder" / "store.db", make=False)
    try:
        with pytest.raises(ConfigError, match=r"--store.*there is no such file.*network set"):
            await store.load()
    finally:
        await store.aclose()
    assert everything_in(tmp_path) == []


async def test_full_disk_is_unavailable_and_loses_nothing(opened: Opener) -> None:
    store = opened()
    grant = await claim(store, A, KEY, 1)
    assert store._connection is not None
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    before = await store.load()
    with pytest.raises(StoreUnavailableError):
        await store.put_config(b"x" * 100_000)
    assert await store.load() == before
    store._connection.execute("PRAGMA max_page_count = 1000000")
    await store.renew(grant)
    await store.put_config(b"x" * 100_000)


async def test_readers_leave_out_what_expired_although_the_disk_is_full(opened: Opener) -> None:
    clock = Clock()
    store = opened(clock=clock)
    grant = await claim(store, A, KEY, 1)
    watcher = Watcher(store, (await store.load()).revision)
    assert store._connection is not None
    store._connection.execute("PRAGMA query_only = ON")
    clock.now += TTL_S
    assert (await store.load()).leases == ()
    assert await watcher.until(1) == [LeaseGone(grant.lease.subnets)]
    await watcher.stop()


async def test_locked_file_is_unavailable_and_usable_again(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)
    store = opened()
    await store.load()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError):
        await claim(store, A, KEY, 1)
    other.execute("ROLLBACK")
    other.close()
    await claim(store, A, KEY, 1)


async def test_file_that_was_removed_is_unavailable_and_a_new_one_is_taken_up(opened: Opener, tmp_path: Path) -> None:
    store = opened()
    await claim(store, A, KEY, 1)
    (tmp_path / "store.db").unlink()
    with pytest.raises(StoreUnavailableError):
        await store.load()
    await opened().put_config(b"new")
    assert (await store.load()).config == b"new"


async def test_damaged_row_is_shown_and_does_not_hide_the_others(opened: Opener, tmp_path: Path) -> None:
    store = opened()
    grant = await claim(store, A, KEY, 1)
    await claim(store, B, "10.1.2.0-24", 2)
    db = sqlite3.connect(tmp_path / "store.db")
    db.execute("UPDATE lease SET value = x'ff' WHERE owner = ?", (B,))
    db.commit()
    db.close()
    snapshot = await store.load()
    assert snapshot.leases == (grant.lease,)
    assert [type(one) for one in snapshot.unreadable] == [Unreadable]
    assert snapshot.unreadable[0].key == "10.1.2.0-24"


async def test_values_of_any_type_are_read_or_shown_and_hide_nothing(opened: Opener, tmp_path: Path) -> None:
    """SQLite keeps a value as other hands put it, whatever the column's type."""
    store = opened()
    grant = await claim(store, A, KEY, 1)
    for number in range(2, 6):
        await claim(store, HostId(f"{number:032x}"), f"10.1.{number}.0-24", number)
    whole = (await store.load()).leases
    db = sqlite3.connect(tmp_path / "store.db")
    db.execute("UPDATE lease SET value = CAST(value AS TEXT) WHERE key = '10.1.2.0-24'")
    db.execute("UPDATE lease SET value = 99999999999 WHERE key = '10.1.3.0-24'")
    db.execute("UPDATE lease SET created = 'soon' WHERE key = '10.1.4.0-24'")
    db.execute("UPDATE lease SET features = '7' WHERE key = '10.1.5.0-24'")
    db.execute("INSERT INTO setting VALUES ('config', '{}')")
    db.commit()
    db.close()
    snapshot = await store.load()
    assert snapshot.config == b"{}"
    assert snapshot.leases == (grant.lease, whole[1])
    assert [one.key for one in snapshot.unreadable] == ["10.1.3.0-24", "10.1.5.0-24", "10.1.4.0-24"]


async def test_store_without_a_table_is_none_of_ours(opened: Opener, tmp_path: Path) -> None:
    await claim(opened(), A, KEY, 1)
    with sqlite3.connect(tmp_path / "store.db") as db:
        db.execute("DROP TABLE lease")
    db.close()
    with pytest.raises(StoreDataError, match="not an overlaynet store: no such table: lease"):
        await opened().load()


async def test_call_after_close_says_so(opened: Opener) -> None:
    store = opened()
    await store.aclose()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.load()


async def test_watchers_hear_of_changes_and_expiries_at_once(opened: Opener) -> None:
    def clock() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    writer, readers = opened(clock=clock), [opened(clock=clock) for _ in range(3)]
    watchers = [Watcher(reader, (await reader.load()).revision) for reader in readers]
    worst: list[float] = []
    for n in range(5):
        started = clock()
        grant = await claim(writer, A, f"10.1.{n + 1}.0-24", 1, ttl_s=0.4)
        for watcher in watchers:
            await watcher.until(2 * n + 1)
        heard = clock() - started
        for watcher in watchers:
            await watcher.until(2 * n + 2)
        worst += [heard, clock() - started - 0.4]
        for watcher in watchers:
            assert watcher.heard[2 * n :] == [LeasePut(grant.lease), LeaseGone(grant.lease.subnets)]
    for watcher in watchers:
        await watcher.stop()
    # 200 ms on a machine that is not busy: the middle of ten, so that one slow moment of a shared machine is none of ours.
    assert sorted(worst)[len(worst) // 2] < 0.2


@pytest.mark.parametrize(
    "url", ["", "store.db", "sqlite:///", "sqlite://x/store.db", "etcd://", "etcd://host:99999/x", "etcd3://host", "memory:"]
)
def test_other_urls_name_the_one_that_is_known(url: str) -> None:
    with pytest.raises(ConfigError, match=r"etcd://HOST:PORT|sqlite:///PATH") as caught:
        open_store(url)
    assert caught.value.field == "--store"


async def test_url_names_the_file(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    await store.put_config(b"{}")
    await store.aclose()
    assert (tmp_path / "a.db").exists()
    assert store.traits.name == f"sqlite:///{tmp_path}/a.db"
    assert len(boot_id()) == 36


async def test_watcher_hears_of_what_a_file_does_not_show(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = opened(), opened()
    watcher = Watcher(reader, (await reader.load()).revision)
    first = await claim(writer, A, "10.1.1.0-24", 1)
    await watcher.until_heard(LeasePut(first.lease))
    polls = 0

    def still() -> tuple[int, ...]:
        nonlocal polls
        polls += 1
        return (0,)

    monkeypatch.setattr(reader, "_file_state", still)
    second = await claim(writer, B, "10.1.2.0-24", 2)
    await watcher.until_heard(LeasePut(second.lease))
    # The state that was new is an old one after three looks.
    heard_at = polls
    async with asyncio.timeout(60):
        while polls < heard_at + 3:  # noqa: ASYNC110 - polls are what is counted
            await asyncio.sleep(0.01)
    third = await claim(writer, A, "10.1.1.0-24", 3)
    await watcher.until_heard(LeasePut(third.lease))
    await watcher.stop()


async def test_idle_watch_leaves_sqlite_alone(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    asked = 0
    token = store._token

    def counted() -> tuple[int, int]:
        nonlocal asked
        asked += 1
        return token()

    monkeypatch.setattr(store, "_token", counted)
    polls = 0
    state = store._file_state

    def polled() -> tuple[int, ...] | None:
        nonlocal polls
        polls += 1
        return state()

    monkeypatch.setattr(store, "_file_state", polled)
    watcher = Watcher(store, (await store.load()).revision)
    async with asyncio.timeout(60):
        while polls < 22:  # noqa: ASYNC110 - polls are what is counted
            await asyncio.sleep(0.05)
    await watcher.stop()
    assert asked <= 5, f"asked {asked} times in {polls} polls"
