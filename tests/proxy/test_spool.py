"""Records on a real disk: durable when it is said, refused when it is full, never glued."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.errors import SpoolProblem
from pgbalise.proxy.backlog import Backlog, locked, owner, read_lines
from pgbalise.proxy.spool import LARGEST_STATEMENT, Spool
from tests.proxy.records import intent, killed_writers, name, outcome, progress, written
from tests.proxy.records import spool_directory as make_directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_directory(tmp_path)


@contextmanager
def opened(directory: Path, **limits: int) -> Iterator[Spool]:
    spool = Spool(directory, **{"min_free_bytes": 0, "max_bytes": 2**30, **limits})
    spool.start()
    try:
        yield spool
    finally:
        spool.close()


def told(spool: Spool, record: dict[str, Any]) -> SpoolProblem | None:
    answers: queue.SimpleQueue[SpoolProblem | None] = queue.SimpleQueue()
    spool.append(record, answers.put)
    return answers.get(timeout=20)


def eventually(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_record_is_on_the_disk_when_its_caller_is_told(directory: Path) -> None:
    with opened(directory) as spool:
        record = intent(name("a"), application_name='é "\\\n\u2028😀\udc80')
        assert told(spool, record) is None
        assert written(directory) == [record]
        [path] = directory.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert locked(path)
    assert not locked(path)


def test_what_is_queued_is_written_when_the_spool_closes(directory: Path) -> None:
    with opened(directory) as spool:
        for n in range(5000):
            spool.append(outcome(name(str(n))))
    spool.close()
    assert [record["extract"] for record in written(directory)] == [
        name(str(n)) for n in range(5000)
    ]
    assert told(spool, intent(name("late"))) is not None


def test_a_spool_that_wrote_nothing_leaves_nothing(directory: Path) -> None:
    with opened(directory):
        assert len(list(directory.iterdir())) == 1
    assert list(directory.iterdir()) == []


def test_nothing_is_durable_in_a_file_that_somebody_removed(directory: Path) -> None:
    with opened(directory) as spool:
        assert told(spool, intent(name("a"))) is None
        Backlog(directory).files()[0].unlink()
        assert "removed" in str(told(spool, intent(name("b"))))
        eventually(lambda: spool.problem is None)
        assert told(spool, intent(name("c"))) is None
        assert [record["extract"] for record in written(directory)[-1:]] == [name("c")]


def test_every_one_of_many_threads_is_told(directory: Path) -> None:
    done: list[SpoolProblem | None] = []

    def work(spool: Spool, thread: int) -> None:
        done.extend(told(spool, intent(name(f"{thread}/{n}"))) for n in range(100))

    with opened(directory) as spool:
        threads = [threading.Thread(target=work, args=(spool, n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == [None] * 800
    assert len({record["extract"] for record in written(directory)}) == 800


def test_whoever_fails_when_told_keeps_nobody_else_waiting(directory: Path) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("this loop is closed")

    with opened(directory) as spool:
        spool.append(intent(name("a")), fail)
        assert told(spool, intent(name("b"))) is None


def test_what_was_said_to_be_durable_survives_kill_9(directory: Path, project: Path) -> None:
    durable = killed_writers(directory, project, count=3, enough=400)
    assert len(durable) >= 1200
    records = written(directory)
    assert None not in records
    assert durable <= {record["extract"] for record in records if record["type"] == "intent"}
    files = Backlog(directory).files()
    torn = [path for path in files if not path.read_bytes().endswith(b"\n")]
    # at most the one that each was writing
    assert len({owner(path) for path in torn}) == len(torn) <= 3
    assert len(files) > 3
    assert Backlog(directory).dead() == {owner(path) for path in files}


def test_a_full_file_is_left_for_another_of_the_same_owner(directory: Path) -> None:
    with opened(directory, file_bytes=2000) as spool:
        for n in range(20):
            assert told(spool, intent(name(str(n)))) is None
        files = Backlog(directory).files()
        assert len(files) == 5
        assert len({owner(path) for path in files}) == 1
        assert [locked(path) for path in files] == [False] * (len(files) - 1) + [True]
        assert Backlog(directory).dead() == set()
    assert [record["extract"] for record in written(directory)] == [name(str(n)) for n in range(20)]
    assert Backlog(directory).dead() == {owner(files[0])}


def test_files_that_grow_are_a_small_part_of_what_the_directory_may_hold(directory: Path) -> None:
    with opened(directory, max_bytes=2**24) as spool:
        for n in range(150):
            assert told(spool, intent(name(str(n)))) is None
        assert len(Backlog(directory).files()) == 2


def test_before_the_disk_is_full_intents_are_refused_and_outcomes_are_not(directory: Path) -> None:
    with opened(directory, min_free_bytes=2**60) as spool:
        assert spool.problem is not None
        refused = told(spool, intent(name("a")))
        assert refused is not None
        assert "are free" in str(refused)
        spool.append(progress(name("b"), 1))
        assert told(spool, outcome(name("b"))) is None
        assert spool.problem is not None
        assert [record["type"] for record in written(directory)] == ["outcome"]


def test_a_directory_at_its_limit_takes_intents_again_when_files_are_gone(directory: Path) -> None:
    with opened(directory, max_bytes=100_000) as spool:
        old = directory / "old.damaged"
        old.write_bytes(b"x" * 99_900)
        eventually(lambda: told(spool, intent(name("a"))) is not None)
        assert spool.problem is not None
        assert "limit" in str(spool.problem)
        old.unlink()
        eventually(lambda: spool.problem is None)
        assert told(spool, intent(name("b"))) is None


FULL = """
import json, os, queue, sys, time
sys.path.insert(0, 'tests/proxy')
from pathlib import Path
from pgbalise.proxy.backlog import Backlog
from pgbalise.proxy.spool import Spool
from records import intent, name, outcome, written
directory = Path(sys.argv[1])
spool = Spool(directory, min_free_bytes=0, max_bytes=2**30)
spool.start()
def told(record):
    answers = queue.SimpleQueue()
    spool.append(record, answers.put)
    return answers.get(timeout=20)
durable, refused = [], []
for n in range(10_000):
    problem = told(intent(name(str(n))))
    (refused if problem else durable).append(name(str(n)))
    if problem:
        break
words = str(problem)
spool.append(outcome(durable[0]))
time.sleep(1.5)
stuck = str(spool.problem)
RELIEF
end = time.monotonic() + 20
while spool.problem is not None and time.monotonic() < end:
    time.sleep(0.05)
again = told(intent(name("again")))
spool.close()
records = written(directory)
print(json.dumps({
    "durable": len(durable), "words": words, "stuck": stuck, "again": again and str(again),
    "damaged": records.count(None), "outcomes": sum(r["type"] == "outcome" for r in records),
    "kept": set(durable) | {name("again")} <= {r["extract"] for r in records},
    "lost": [r["extract"] for r in records if r["extract"] in refused],
    "files": len(Backlog(directory).files()),
}))
"""
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
_MOUNT = 'mount -t tmpfs -o size=256k,mode=0700 spool "$1" && shift && exec "$@"'


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as place:
        command = [*_NAMESPACE, _MOUNT, "sh", place, "true"]
        return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="no user namespaces: cannot mount a small disk")
def test_a_full_disk_refuses_and_comes_back(directory: Path, project: Path) -> None:
    # another program fills the disk to the last block; then it takes its file away
    script = FULL.replace("RELIEF", "(directory / 'ballast').unlink()").replace(
        "durable, refused = [], []",
        "durable, refused = [], []\n(directory / 'ballast').write_bytes(b'x' * 150_000)",
    )
    command = [*_NAMESPACE, _MOUNT, "sh", str(directory), sys.executable, "-c", script]
    done = subprocess.run([*command, str(directory)], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["durable"] > 20
    assert "No space left on device" in found["words"]
    assert "No space left on device" in found["stuck"]
    assert (found["again"], found["damaged"], found["outcomes"]) == (None, 0, 1)
    assert found["kept"]
    assert found["lost"] == []
    assert found["files"] == 2


def test_a_write_that_is_cut_short_ends_its_file(directory: Path, project: Path) -> None:
    # a limit on a file's size fails like a full disk: after writing what still fits
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
    command = [sys.executable, "-c", limit + FULL.replace("RELIEF", ""), str(directory)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "File too large" in found["words"]
    assert (found["again"], found["damaged"], found["outcomes"]) == (None, 0, 1)
    assert found["kept"]
    assert found["lost"] == []
    assert found["files"] == 2
    for path in Backlog(directory).files():
        assert path.read_bytes().endswith(b"\n")


def test_a_directory_that_others_can_enter_is_refused(directory: Path, tmp_path: Path) -> None:
    def complaint(path: Path) -> str:
        with pytest.raises(SpoolProblem) as caught:
            Spool(path, min_free_bytes=0, max_bytes=2**30).start()
        return str(caught.value)

    directory.chmod(0o750)
    assert "chmod 0700" in complaint(directory)
    directory.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(directory)
    assert "not a directory" in complaint(link)
    assert "mode 0700" in complaint(tmp_path / "nothing")
    if os.geteuid() == 0:
        os.chown(directory, 65534, 65534)
        assert "another user" in complaint(directory)


def test_a_long_statement_is_cut_and_a_longer_record_refused(directory: Path) -> None:
    with opened(directory) as spool:
        assert told(spool, intent(name("a"), statement="é" * 10**6)) is None
        assert told(spool, intent(name("b"), client="x" * 5 * 2**20)) is not None
        assert told(spool, intent(name("c"))) is None
    first, second = written(directory)
    assert len(first["statement"]) == LARGEST_STATEMENT
    assert first["statement"].endswith("é…")
    assert second["extract"] == name("c")


def test_appending_never_waits_for_the_writer(directory: Path) -> None:
    stuck, go = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        stuck.set()
        go.wait(20)

    with opened(directory) as spool:
        spool.append(intent(name("first")), wait)
        assert stuck.wait(20)
        for n in range(5000):
            spool.append(intent(name(str(n))))
        assert len(written(directory)) == 1
        go.set()
        assert told(spool, intent(name("last"))) is None
        assert len(written(directory)) == 5002


RECORDS = st.lists(
    st.dictionaries(
        st.text(max_size=5), st.text(max_size=20) | st.integers() | st.lists(st.text(max_size=3))
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(records=RECORDS, data=st.data())
def test_a_file_torn_anywhere_gives_its_whole_lines_and_later_the_rest(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        directory.chmod(0o700)
        with opened(directory) as spool:
            for record in records:
                spool.append(record)
        whole = b"".join(path.read_bytes() for path in Backlog(directory).files())
        cut = data.draw(st.integers(0, len(whole)))
        torn = directory / "torn.jsonl"
        torn.write_bytes(whole[:cut])
        begun = list(read_lines(torn, 0))
        assert [line.record for line in begun] == records[: whole[:cut].count(b"\n")]
        torn.write_bytes(whole)
        rest = read_lines(torn, begun[-1].end if begun else 0)
        assert [line.record for line in [*begun, *rest]] == records


@settings(deadline=None, max_examples=60)
@given(noise=st.binary(max_size=40).map(lambda noise: noise.replace(b"\n", b"\r")))
def test_a_damaged_line_is_told_and_the_others_are_read(noise: bytes) -> None:
    good = json.dumps(intent(name("a"))).encode() + b"\n"
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "file.jsonl"
        path.write_bytes(good + noise + b"\n" + good)
        first, middle, last = read_lines(path, 0)
    assert first.record == last.record == intent(name("a"))
    assert middle.damaged == bool(noise.strip()) or isinstance(middle.record, dict)
    assert middle.raw == noise + b"\n"


@pytest.mark.parametrize("line", [b"[1]", b"1.5", b'{"a": 1.5}', b'{"a": NaN}', b'{"a": 1', b"["])
def test_what_is_no_record_is_damaged(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"\n" + line + b"\n" + b"[" * 10**5 + b"\n" + b"x" * 9 * 2**20 + b"\n{}\n")
    assert [found.damaged for found in read_lines(path, 0)] == [False, True, True, True, False]
