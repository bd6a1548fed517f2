"""Free and busy ports, and who has a busy one."""

import socket

import psutil


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def owner(port: int) -> str:
    """Describe the process that listens on a port, as far as we may know."""
    try:
        (pid, *_) = [
            listener.pid
            for listener in psutil.net_connections(kind="tcp")
            if listener.pid
            and listener.status == psutil.CONN_LISTEN
            and listener.laddr
            and listener.laddr.port == port
        ]
        process = psutil.Process(pid)
        return f"process {process.pid} ({' '.join(process.cmdline()[:4])})"
    except (psutil.Error, ValueError):
        return "a process of another user"
