"""A container whose root may trace everybody lies in wait for whoever enters it by exec (CVE-2016-9962)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from enisle.wire.plans import to_json
from tests.attacks.programs import compile_program
from tests.counts import count
from tests.linux.keepers import CAPABILITIES, Host, host, read_all


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("box")) as made:
        compile_program("lurker", made.layer / "bin/lurker")
        yield made


def test_nobody_who_enters_can_be_traced(box: Host) -> None:
    """Not even by a root with SYS_PTRACE, which is over whatever it sees."""
    rights = [*CAPABILITIES, "SYS_PTRACE"]
    plan = box.plan("lurker", capabilities=rights)
    keeper = box.keeper(plan)
    ours, theirs = socket.socketpair()
    number = keeper.post("attach", (theirs.fileno(),), stdin=False)
    theirs.close()
    keeper.answer(number)
    keeper.ask("start", wall="container", plan=to_json(plan))
    for index in range(count(100, 1000)):
        options = {"user": "user"} if index % 3 else {}
        process = box.plan("true", capabilities=rights, terminal=not index % 4, **options).process
        keeper.ask("exec", exec_id=str(index), process=to_json(process))
        assert keeper.event("exec_exit")["exit_code"] == 0
    keeper.ask("signal", signal=9)
    keeper.event("exit")
    assert set(read_all(ours).decode().splitlines()) == {"lurking"}
