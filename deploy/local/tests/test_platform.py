"""The platform refuses clearly what it cannot do."""

import os
import socket
from pathlib import Path

import pytest

from dozen_local.credentials import Credentials
from dozen_local.layout import SERVICE_PORTS, Layout
from dozen_local.platform import Platform, PlatformError


def platform(home: Path, port_offset: int = 0) -> Platform:
    return Platform(Layout(home, port_offset), Credentials(b"m" * 32))


def ignore(_: str, __: str) -> None:
    """Report to nobody."""


def test_a_busy_port_is_named_with_who_needs_it_and_who_has_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        refusing = platform(tmp_path, port - SERVICE_PORTS["chat"][0])
        message = rf"port {port}, which chat needs, is taken by process {os.getpid()} \("
        with pytest.raises(PlatformError, match=message):
            refusing.up(ignore)
    assert not any(process.pid for process in refusing.processes.values())
    assert not (tmp_path / "postgres").exists()


def test_an_unknown_name_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="There is no chta; there are postgres, nats, llama, gateway"):
        platform(tmp_path).restart(["chta"], ignore)


def test_two_commands_do_not_start_the_same_deployment_at_once(tmp_path: Path) -> None:
    with (
        platform(tmp_path).exclusive(),
        pytest.raises(PlatformError, match="Another command"),
        platform(tmp_path).exclusive(),
    ):
        pytest.fail("two at once")


def test_the_layout_is_remembered(tmp_path: Path) -> None:
    assert Layout.open(tmp_path) == Layout(tmp_path, 0)
    Layout(tmp_path, 1000).save()
    assert Layout.open(tmp_path) == Layout(tmp_path, 1000)
