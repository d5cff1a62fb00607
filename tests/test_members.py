"""The other processes of a run, as the first one sees them; here they are connections of this one."""

import os
import pickle
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Client, Connection
from pathlib import Path

import pytest
import torch

from alignlab.config.check import parse
from alignlab.config.spec import Builder
from alignlab.data.source import DataSource
from alignlab.errors import AlignlabError, ConfigError, PipelineError
from alignlab.launched import STARTED_BY, Place
from alignlab.pipeline import follower, members, team
from alignlab.pipeline.follower import _Follower
from alignlab.pipeline.members import Members, RankLost
from alignlab.pipeline.plan import plan
from alignlab.pipeline.ranks import Leader
from alignlab.pipeline.shared_job import Job
from alignlab.runtime import Runtime

HERE = Place(0, 2, 0, 2, "127.0.0.1", 0)


def joined(rank: int, address: bytes) -> Connection:
    """A process that has joined."""
    port, key = pickle.loads(address)
    link = Client(("127.0.0.1", port), authkey=key)
    link.send(("here", rank, f"pid {rank}"))
    return link


def lost(found: Members) -> str:
    """What is said of the process that was lost."""
    with pytest.raises(RankLost) as error:
        found.answers()
    return str(error.value)


def test_what_they_made_is_in_order_and_signs_of_life_are_no_answers() -> None:
    found = Members(Place(0, 3, 0, 3, "127.0.0.1", 0), {}, lambda error: None)
    links = {rank: joined(rank, found.address) for rank in (2, 1)}
    found.gather(10)
    found.send({1: "a", 2: "b"})
    for rank, link in links.items():
        assert link.recv() == {1: "a", 2: "b"}[rank]
        link.send(("alive",))
        link.send(("done", rank))
    assert found.answers() == [1, 2]
    found.end(3)
    assert [link.recv() for link in links.values()] == [("end", 3)] * 2
    found.close()


def test_one_that_gives_no_sign_of_life_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "SILENCE", 0.5)
    found = Members(HERE, {}, lambda error: None)
    link = joined(1, found.address)
    for _ in range(5):
        time.sleep(0.2)
        link.send(("alive",))
    found.gather(0)
    assert "rank 1 of 2 (pid 1) has given no sign of life for 0.5 s" in lost(found)
    with pytest.raises(EOFError):
        link.recv()


def test_a_silent_one_that_was_started_here_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "SILENCE", 0.5)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        found = Members(HERE, {1: process}, lambda error: None)
        link = joined(1, found.address)
        assert "no sign of life" in lost(found)
        assert process.wait(10) < 0
        link.close()


def test_one_that_failed_waits_for_the_end_once_this_one_has_failed_too() -> None:
    told: list[RankLost] = []
    found = Members(HERE, {}, told.append)
    link = joined(1, found.address)
    link.send(("failed", "DataError: too long", ""))
    assert "rank 1 of 2 (pid 1) failed: DataError: too long" in lost(found) and len(told) == 1
    found.hold()
    found.end(1)
    assert [link.recv(), link.recv()] == [("hold",), ("end", 1)]


def test_a_stranger_without_the_key_does_not_join() -> None:
    found = Members(HERE, {}, lambda error: None)
    port, _ = pickle.loads(found.address)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(b"\x00" * 64)
    with pytest.raises(RankLost, match=r"rank 1 of 2 did not join within 0\.3 s"):
        found.gather(0.3)


def test_a_run_of_one_machine_is_not_heard_in_the_network() -> None:
    """What is said there is unpickled by who hears it."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not tables[0].is_file():
        pytest.skip("needs Linux's list of open ports")
    leader = Leader(HERE)
    rows = [row.split() for table in tables if table.is_file() for row in table.read_text().splitlines()[1:]]
    heard = {row[1] for row in rows if row[3] == "0A"}
    port, _ = pickle.loads(leader._members.address)
    link = joined(1, leader._members.address)
    for mine in (leader.port, port):
        assert [place for place in heard if place.endswith(f":{mine:04X}")] == [f"0100007F:{mine:04X}"]
    leader.close(0)
    link.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_a_port_in_use_is_named(address: str) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"rank 0 of 2 cannot .* at {address}:{port} .*MASTER_PORT"):
            Leader(Place(0, 2, 0, 2, address, port))


def test_a_process_whose_first_one_is_gone_before_it_has_joined_ends() -> None:
    """It was started by one that is killed while it still imports torch."""
    place = Place(1, 2, 1, 2, "127.0.0.1", 9)
    program = f"from alignlab.pipeline.follower import follow, Place; follow({place!r})"
    gone = {**os.environ, STARTED_BY: str(os.getpid() + 1)}
    found = subprocess.run([sys.executable, "-c", program], env=gone, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1 and "rank 1 of 2 has lost rank 0, and ends" in found.stderr


@pytest.mark.usefixtures("fakes_here")
def test_a_process_with_other_files_computes_no_share() -> None:
    """Two processes that learn from different data, or by different code, would not know."""
    (step,) = plan({"base": parse({"_target_": "lab_fakes.Make", "size": 2}, "pipeline.base")}, Runtime())
    known = step.fingerprint, step.input_fingerprints, step.code
    job = Job("base", step.spec, {}, Path("work"), Path("store"), Runtime(), *known)
    follower._check_same(job, Builder(shared=(DataSource,)))
    ours = next(iter(step.code))
    for changed, what in (
        ({"fingerprint": "0" * 64}, "its data files have another content"),
        ({"fingerprint": "0" * 64, "code": {**step.code, ours: "x"}}, f"the code of {ours} is another"),
    ):
        with pytest.raises(PipelineError, match=f"^base: {what} here than for rank 0"):
            follower._check_same(replace(job, **changed), Builder(shared=(DataSource,)))


# ---- threads ---------------------------------------------------------------------------------------------------------
def test_processes_that_help_use_as_many_threads_as_the_first() -> None:
    leader = Leader(HERE, threads=3)
    link = joined(1, leader._members.address)
    helper = _Follower(Place(1, 2, 1, 2, "127.0.0.1", 0), leader._meeting, link)
    before = torch.get_num_threads()

    def serve() -> int:
        helper._messages.put(link.recv())
        helper._messages.put(("end", 7))
        return helper._serve()

    try:
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(serve)
            assert leader.call(torch.get_num_threads, [()], lambda: 0) == [0, 3]
            assert made.result(10) == 7
    finally:
        torch.set_num_threads(before)
        link.close()
        leader.close(0)


# ---- jobs after one that failed --------------------------------------------------------------------------------------
def test_processes_of_a_launcher_are_not_used_after_a_failure() -> None:
    """They may be at another point of the work."""

    def broken() -> int:
        raise AlignlabError("broken")

    leader = Leader(HERE)
    link = joined(1, leader._members.address)
    team._leading.append(leader)
    try:
        assert team.placed(Runtime(devices=2, strategy="ddp")).devices == 2
        with pytest.raises(AlignlabError, match="broken"):
            leader.call(len, [([],)], broken)
        with pytest.raises(RankLost, match=r"cannot continue after a job that failed.* sweep\.resume=true"):
            team.placed(Runtime(devices=2, strategy="ddp"))
    finally:
        team._leading.clear()
        leader.close(1)
        link.close()
