"""Processes are found again by their pid file, waited for, and stopped."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dozen_local.processes import MAX_LOG_BYTES, Process, ProcessFailed, Program

MakeProcess = Callable[..., Process]

GETS_READY = "import pathlib, signal, sys; pathlib.Path(sys.argv[1]).touch(); signal.pause()"


@pytest.fixture
def make_process(tmp_path: Path) -> Iterator[MakeProcess]:
    """Describe a process that runs a line of Python; all share one pid file."""
    ready = tmp_path / "ready"
    made: list[Process] = []

    def make(code: str = GETS_READY, *, stop_seconds: float = 10) -> Process:
        argv = [sys.executable, "-c", code, str(ready)]
        program = Program(name="example", argv=argv, is_ready=ready.exists, stop_seconds=stop_seconds)
        process = Process(program, tmp_path / "run" / "example.pid", tmp_path / "log" / "example.log")
        made.append(process)
        return process

    yield make
    for process in made:
        process.stop()


def test_a_process_is_found_again_by_another_command(make_process: MakeProcess) -> None:
    started = make_process()
    started.start()
    started.wait_until_ready()
    found = make_process()
    assert found.pid is not None
    assert found.pid == started.pid
    assert found.pid_file.read_text() == f"{started.pid}\n"
    found.stop()
    assert started.pid is None
    assert not found.pid_file.exists()


def test_a_running_process_is_left_alone_by_start(make_process: MakeProcess) -> None:
    process = make_process()
    process.start()
    before = process.pid
    make_process().start()
    assert process.pid == before


def test_a_killed_process_is_known_to_be_gone(make_process: MakeProcess) -> None:
    process = make_process()
    process.start()
    killed = process.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert process.pid_file.exists()
    assert process.pid is None
    with pytest.raises(ProcessFailed, match="was ended by SIGKILL"):
        process.wait_until_ready()
    process.start()
    assert process.pid not in (None, killed)


def test_a_recycled_pid_is_not_taken_for_the_process(make_process: MakeProcess) -> None:
    process = make_process()
    process.pid_file.parent.mkdir()
    process.pid_file.write_text(f"{os.getpid()}\n")
    assert process.pid is None
    process.stop()
    assert not process.pid_file.exists()


def test_a_crash_is_told_with_the_end_of_the_log(make_process: MakeProcess) -> None:
    process = make_process("raise SystemExit('the disk is full')")
    process.start()
    message = r"(?s)example ended with exit code 1.*example\.log.*the disk is full"
    with pytest.raises(ProcessFailed, match=message):
        process.wait_until_ready()


def test_a_process_that_does_not_become_ready_is_told(make_process: MakeProcess) -> None:
    process = make_process("import signal; signal.pause()")
    process.start()
    with pytest.raises(ProcessFailed, match="not ready after 0 s"):
        process.wait_until_ready(seconds=0)


def test_a_process_that_does_not_stop_is_killed(make_process: MakeProcess) -> None:
    process = make_process(
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {GETS_READY}", stop_seconds=0
    )
    process.start()
    process.wait_until_ready()
    process.stop()
    assert process.pid is None


def test_the_log_is_added_to_until_it_is_long(make_process: MakeProcess) -> None:
    process = make_process("print('hello')")

    def run() -> None:
        process.start()
        with pytest.raises(ProcessFailed):
            process.wait_until_ready()

    run()
    run()
    assert process.log_file.read_text() == "hello\nhello\n"
    process.log_file.write_bytes(b"-" * (MAX_LOG_BYTES + 1))
    run()
    assert process.log_file.read_text() == "hello\n"
    assert Path(f"{process.log_file}.1").stat().st_size == MAX_LOG_BYTES + 1
