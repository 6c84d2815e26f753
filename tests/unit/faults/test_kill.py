"""A tab, or the whole browser, dies before every change to a file, and in the middle of writes."""

from __future__ import annotations

import pytest
from simulated_opfs import Library

from faults.disk import Disk, crashes
from faults.workload import Run, allowed_after, check_recovery


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
@pytest.mark.parametrize("keeps", [True, False])
def test_killed_before_every_change(
    library: Library, thorough: bool, synchronous: str, keeps: bool
) -> None:
    run = Run(library, Disk(), synchronous=synchronous, keeps=keeps).all()
    found = set()
    for crash in crashes(run.disk, stride=1 if thorough else 4, seed=keeps):
        first, last = allowed_after(crash, durable=True)
        allowed = run.states[first : last + 1]
        try:
            found.add(run.states.index(check_recovery(library, Disk(crash.files), allowed)))
        except Exception as error:
            raise AssertionError(f"{crash.how} before entry {crash.before}: {error}") from error
    # Each of them was the one that was found, somewhere.
    assert found == set(range(len(run.states)))


def test_pages_of_64_kib(library: Library, thorough: bool) -> None:
    """Their size is written as 1 in the database, and spans the gathered appends."""
    run = Run(library, Disk(), page_size=65536).all()
    for crash in crashes(run.disk, stride=1 if thorough else 12):
        first, last = allowed_after(crash, durable=True)
        check_recovery(library, Disk(crash.files), run.states[first : last + 1])


def test_a_survivor_that_dies_too(library: Library, thorough: bool) -> None:
    """What the second crash leaves is what the first left, or something later, whole."""
    run = Run(library, Disk()).all()
    for crash in list(crashes(run.disk, power_seeds=1))[:: 7 if thorough else 331]:
        survivor = Run(library, Disk(crash.files))
        survivor.model.connection.close()
        client = survivor.client(0)
        found = client.dump()
        states = [found]
        for sql in ("CREATE TABLE z(x)", "INSERT INTO z VALUES(zeroblob(20000))", "DELETE FROM z"):
            survivor.disk.mark(("began", len(states)))
            client.write(sql)
            survivor.disk.mark(("done", len(states)))
            states.append(client.dump())
            client.checkpoint()
        survivor.close()
        for second in crashes(survivor.disk, stride=5, power_seeds=1):
            first, last = allowed_after(second, durable=True)
            allowed = states[first : last + 1]
            check_recovery(library, Disk(second.files), allowed)
