"""What people see: live progress, the table of processes, the summary."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dozen_local.layout import LLAMA_MODEL
from dozen_local.processes import Process

STYLES = {"waiting": "dim", "starting": "yellow", "ready": "green", "running": "cyan", "stopped": "red"}


class Progress:
    """Shows each step of a start as it happens: a live table on a terminal, a line per step elsewhere."""

    def __init__(self, console: Console, steps: Sequence[str]) -> None:
        self._console = console
        self._states = dict.fromkeys(steps, "waiting")
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def report(self, step: str, state: str) -> None:
        """Take the new state of a step."""
        now = time.monotonic()
        self._states[step] = state
        if state == "starting":
            self._began[step] = now
        elif step in self._began:
            self._took[step] = now - self._began[step]
        if not self._live.is_started and state != "starting":
            self._console.print(f"{step:<12} {state:<8} {self._seconds(step)}".rstrip())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for step, state in self._states.items():
            table.add_row(step, f"[{STYLES[state]}]{state}", self._seconds(step))
        return table

    def _seconds(self, step: str) -> str:
        if step not in self._began:
            return ""
        return f"{self._took.get(step) or time.monotonic() - self._began[step]:.1f} s"


def status_table(processes: Iterable[Process]) -> Table:
    """Make the table of processes: what runs, where, how well and at what cost."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("name", "state", "pid", "ports"):
        table.add_column(heading)
    for heading in ("memory", "uptime"):
        table.add_column(heading, justify="right")
    total = 0
    for process in processes:
        if (pid := process.pid) is None:
            table.add_row(process.name, "[red]stopped")
            continue
        state = "[green]ready" if process.program.is_ready() else "[yellow]not ready"
        listens = ", ".join(f"{port} {protocol}" for protocol, port in process.program.ports.items())
        memory = memory_bytes(pid)
        total += memory
        uptime = time.time() - psutil.Process(pid).create_time()
        table.add_row(process.name, state, str(pid), listens, f"{memory / 2**20:,.0f} MiB", _duration(uptime))
    table.add_row("", "", "", "", f"{total / 2**20:,.0f} MiB")
    return table


def memory_bytes(pid: int) -> int:
    """Give the memory of a process and its children, shared pages divided among those who share them."""
    total = 0
    leader = psutil.Process(pid)
    for process in (leader, *leader.children(recursive=True)):
        try:
            memory = process.memory_full_info()
        except psutil.Error:  # it ended, or belongs to another user
            continue
        total += getattr(memory, "pss", memory.rss)
    return total


def summary(variables: Mapping[str, str], env_file: Path, refusal: str | None, seconds: float) -> str:
    """Say how to use what has started; `refusal` is why the key does not work, if it does not."""
    url, key = variables["OPENAI_BASE_URL"], variables["OPENAI_API_KEY"]
    question = [{"role": "user", "content": "Which city is the capital of France?"}]
    body = {"model": LLAMA_MODEL, "messages": question, "max_tokens": 50, "temperature": 0}
    remark = f"\nThe key cannot be used now: {refusal}\n" if refusal else ""
    return f"""
Dozen is up after {seconds:.1f} s.

  API      {url}
  key      {key}
  admin    {variables["DOZEN_ADMIN_URL"]}
  password {variables["DOZEN_ADMIN_PASSWORD"]}
{remark}
The same for your shell:  set -a; . {env_file}; set +a

Try it:

curl {url}/chat/completions \\
  -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{json.dumps(body)}'
"""


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 2:
        return f"{days:.0f} days"
    if hours >= 2:
        return f"{hours:.0f} h"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
