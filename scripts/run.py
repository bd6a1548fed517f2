"""Become one service of the local platform, with the settings that it has there."""

import os
import sys
from pathlib import Path

from dozen_local.credentials import Credentials
from dozen_local.environment import inherited_environment, service_environment
from dozen_local.layout import SERVICES, Layout
from dozen_local.platform import Platform


def main(service: str, *command: str) -> None:
    """Replace this process by the service, run with a command such as `migrate`."""
    layout = Layout.open(Path(os.environ.get("DOZEN_HOME", ".dozen")).resolve())
    if service not in SERVICES:
        sys.exit(f"There is no service {service}; there are {', '.join(SERVICES)}.")
    if not layout.credentials_file.exists():
        sys.exit("Its database and NATS are not there yet; `make up` first.")
    credentials = Credentials.open(layout.credentials_file)
    if not command and (pid := Platform(layout, credentials).processes[service].pid):
        sys.exit(f"{service} runs in the background as process {pid}; end it first: kill {pid}")
    environment = service_environment(service, layout, credentials, inherited_environment())
    os.execve(sys.executable, [sys.executable, "-m", f"dozen_{service}", *command], environment)


main(*sys.argv[1:])
