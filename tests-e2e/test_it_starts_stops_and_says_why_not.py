"""What a person sees who starts, repeats, interrupts and stops the platform."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from dozen_local.environment import read_env
from dozen_local.layout import SERVICES
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dozen_local", "--home", str(home), *arguments],
        check=False,
        capture_output=True,
        text=True,
    )


def test_started_again_it_finds_what_runs(local_platform: Platform) -> None:
    layout = local_platform.layout
    before = {name: process.pid for name, process in local_platform.processes.items()}
    again = command(layout.home, "up")
    assert again.returncode == 0, again.stderr
    assert {name: process.pid for name, process in local_platform.processes.items()} == before
    variables = read_env(layout.env_file)
    assert variables["OPENAI_API_KEY"] in again.stdout
    assert variables["DOZEN_ADMIN_URL"] in again.stdout
    assert f"curl {variables['OPENAI_BASE_URL']}/chat/completions" in again.stdout


def test_the_status_shows_every_process(local_platform: Platform) -> None:
    status = command(local_platform.layout.home, "status")
    assert status.returncode == 0, status.stdout
    for name in ("postgres", "nats", "llama", *SERVICES):
        assert f"{name} " in status.stdout
        assert local_platform.layout.pid_file(name).exists()
        assert local_platform.layout.log_file(name).exists()


def test_the_printed_curl_line_works(local_platform: Platform) -> None:
    printed = command(local_platform.layout.home, "up").stdout
    line = "curl -sS --fail-with-body" + printed[printed.index("curl ") + 4 :]
    ran = subprocess.run(["bash", "-c", line], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Paris" in ran.stdout


async def test_interrupted_it_leaves_nothing_running(local_platform: Platform, tmp_path: Path) -> None:
    offset = local_platform.layout.port_offset + 500
    starting = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dozen_local", "--home", str(tmp_path), "up", "--port-offset", str(offset)
    )  # fmt: skip

    async def begun() -> bool:
        return (tmp_path / "run" / "chat.pid").exists()

    await eventually(begun, 60)
    starting.send_signal(signal.SIGINT)
    assert await starting.wait() == 130
    pid_files = list((tmp_path / "run").glob("*.pid"))
    assert pid_files == []
    assert command(tmp_path, "down").stdout == "Nothing was running.\n"
    cleaned = command(tmp_path, "clean", "--yes")
    assert cleaned.returncode == 0, cleaned.stderr
    assert not tmp_path.exists()


def test_a_crashed_service_is_named_with_its_log(local_platform: Platform, tmp_path: Path) -> None:
    environment = {**os.environ, "DOZEN_LOG_LEVEL": "NO_SUCH_LEVEL"}
    failed = subprocess.run(
        [
            sys.executable, "-m", "dozen_local", "--home", str(tmp_path / "home"),
            "up", "--port-offset", str(local_platform.layout.port_offset + 500),
        ],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert failed.returncode == 1
    assert str(tmp_path / "home" / "log") in failed.stderr
    assert "NO_SUCH_LEVEL" in failed.stderr
