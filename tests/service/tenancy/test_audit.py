"""The audit log on a real store."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.errors import InvalidInput
from service.store import Store
from service.tenancy.audit import AuditEntry, AuditLog, MemoryAudit, RedisAudit, digest

ENTRY = AuditEntry(
    at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    actor="admin_0a1b2c3d",
    tenant=None,
    action="create_tenant",
    path="/admin/tenants",
    status=201,
    request_id="req_1",
    after=digest("{}"),
)


@pytest.fixture(params=["redis", "memory"])
def audit(request: pytest.FixtureRequest) -> AuditLog:
    return MemoryAudit() if request.param == "memory" else RedisAudit(request.getfixturevalue("store"))


async def test_entries_come_back_newest_first_page_by_page(audit: AuditLog) -> None:
    """Five entries in pages of two: 5 4, 3 2, 1; none twice, none left out."""
    for number in range(1, 6):
        await audit.append(replace(ENTRY, request_id=f"req_{number}"))
    pages: list[list[str]] = []
    cursor = None
    for _ in range(3):
        entries = await audit.newest(2, before=cursor)
        pages.append([entry.request_id for entry in entries])
        cursor = entries[-1].id
    assert pages == [["req_5", "req_4"], ["req_3", "req_2"], ["req_1"]]
    assert await audit.newest(2, before=cursor) == []


async def test_an_entry_comes_back_as_it_was_kept(audit: AuditLog) -> None:
    """With an id of the log's own."""
    await audit.append(ENTRY)
    (entry,) = await audit.newest(1)
    assert replace(entry, id="") == ENTRY
    assert entry.id


@pytest.mark.parametrize("cursor", ["", "x", "1", "1-", "-1", "1-2-3", "99999999999999999999-0", "1-\u0662"])
async def test_a_cursor_that_is_none_is_refused(store: Store, cursor: str) -> None:
    """Before the store is asked."""
    with pytest.raises(InvalidInput, match="cursor: must be a `next_cursor`"):
        await RedisAudit(store).newest(1, before=cursor)
