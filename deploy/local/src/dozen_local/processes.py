"""Processes that outlive the command that starts them: pid files, logs, readiness and stopping."""

import fcntl
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

MAX_LOG_BYTES = 10 * 1024 * 1024
POLL_SECONDS = 0.1
STOP_SECONDS = 35.0  # a service lets running requests finish for up to 30


class ProcessFailed(Exception):
    """A process ended by itself or does not become ready."""


@dataclass(frozen=True)
class Program:
    """All that is needed to run one process."""

    name: str
    argv: Sequence[str]
    is_ready: Callable[[], bool]
    ports: Mapping[str, int] = field(default_factory=dict)
    """What it listens on, by protocol."""
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    user_id: int | None = None
    """Runs as this user and group instead of the caller's."""
    stop_seconds: float = STOP_SECONDS
    """How long it may take to stop before it is killed."""


class Process:
    """One program, running or not, known by its pid file.

    The process itself holds a lock on the pid file as long as it lives, so neither a stale file nor a
    recycled process id can be mistaken for it.
    """

    def __init__(self, program: Program, pid_file: Path, log_file: Path) -> None:
        self.program = program
        self.pid_file = pid_file
        self.log_file = log_file
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """Name of the program."""
        return self.program.name

    @property
    def pid(self) -> int | None:
        """Id of the running process, None where it does not run."""
        if self._child is not None:
            self._child.poll()
        try:
            with self.pid_file.open() as file:
                return int(file.read()) if _is_locked(file) else None
        except (FileNotFoundError, ValueError):
            return None

    def start(self) -> None:
        """Start the process in a session of its own; one that runs is left alone."""
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > MAX_LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        if self.pid is not None:
            return
        user_id = self.program.user_id
        with (
            self.pid_file.open("a") as pid_file,
            self.log_file.open("ab") as log,
            _signals_held() as mask,  # or an interrupt would leave a process that no pid file knows
        ):
            fcntl.flock(pid_file, fcntl.LOCK_EX)
            self._child = subprocess.Popen(
                self.program.argv,
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(pid_file.fileno(),),  # inherits the lock
                preexec_fn=partial(signal.pthread_sigmask, signal.SIG_SETMASK, mask),
                user=user_id,
                group=user_id,
                extra_groups=None if user_id is None else [],
            )
            pid_file.truncate(0)
            pid_file.write(f"{self._child.pid}\n")
            pid_file.flush()

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Return when the process is ready; raise `ProcessFailed` where that does not happen."""
        for _ in wait_until_ready([self], seconds):
            pass

    def stop(self) -> None:
        """Stop the process, killing it where it does not listen."""
        stop_all([self])

    def request_stop(self) -> None:
        """Ask the process to stop and return at once."""
        if (pid := self.pid) is not None:
            try:
                os.kill(pid, self.program.stop_signal)
            except ProcessLookupError:  # only children of it are left
                self.kill()

    def kill(self) -> None:
        """Kill the process and its children."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def log_tail(self, lines: int = 15) -> str:
        """Give the last lines of the log."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 64 * 1024))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def ending(self) -> str:
        """Say how the process ended, as far as that is known."""
        code = None if self._child is None else self._child.poll()
        if code is None:
            return "ended"
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def wait_until_ready(processes: Iterable[Process], seconds: float) -> Iterator[Process]:
    """Yield each process once it is ready; raise `ProcessFailed` for one that ends or takes too long."""
    waiting = list(processes)
    deadline = time.monotonic() + seconds
    while waiting:
        for process in list(waiting):
            if process.pid is None:
                raise ProcessFailed(_failure(process, f"{process.name} {process.ending()}."))
            if process.program.is_ready():
                waiting.remove(process)
                yield process
            elif time.monotonic() > deadline:
                raise ProcessFailed(_failure(process, f"{process.name} is not ready after {seconds:.0f} s."))
        if waiting:
            time.sleep(POLL_SECONDS)


def stop_all(processes: Sequence[Process]) -> None:
    """Stop processes side by side; kill those that take longer than they may."""
    began = time.monotonic()
    for process in processes:
        process.request_stop()
    for process in processes:
        while process.pid is not None:
            if time.monotonic() - began > process.program.stop_seconds:
                process.kill()
            time.sleep(POLL_SECONDS)
        process.pid_file.unlink(missing_ok=True)


def http_ok(port: int, path: str) -> bool:
    """Tell whether a local server answers a GET with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _signals_held() -> Iterator[set[signal.Signals]]:
    """Deliver what asks this process to end after the block; give the mask to go back to."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield {signal.Signals(number) for number in previous}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _failure(process: Process, what: str) -> str:
    return f"{what} The end of {process.log_file}:\n{process.log_tail()}"
