"""The commands behind `make up`, `down`, `status`, `logs`, `restart` and `clean`."""

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from dozen_local.credentials import Credentials
from dozen_local.display import Progress, status_table, summary
from dozen_local.environment import read_env
from dozen_local.layout import REPOSITORY, Layout
from dozen_local.platform import Platform, PlatformError
from dozen_local.processes import ProcessFailed

console = Console(highlight=False)


def main() -> int:
    """Run one command; return the exit status."""
    arguments = _parser().parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        layout = Layout.open(arguments.home.resolve())
        if arguments.run is not up and not layout.credentials_file.exists():
            raise PlatformError(f"Nothing was ever started in {layout.home}; `make up` does.")
        return int(arguments.run(layout, arguments) or 0)
    except (PlatformError, ProcessFailed) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def up(layout: Layout, arguments: argparse.Namespace) -> None:
    """Start whatever does not run, and print how to use it."""
    began = time.monotonic()
    if arguments.port_offset not in (None, layout.port_offset):
        if any(process.pid for process in _platform(layout).processes.values()):
            raise PlatformError(f"It runs with port offset {layout.port_offset}; `make down` first.")
        layout = Layout(layout.home, arguments.port_offset)
    platform = _platform(layout)
    with platform.exclusive(), Progress(console, [*platform.processes, "databases", "account"]) as progress:
        layout.save()
        access = platform.up(progress.report)
    variables = read_env(layout.env_file)
    print(summary(variables, layout.env_file, access.refusal, time.monotonic() - began))


def down(layout: Layout, _: argparse.Namespace) -> None:
    """Stop everything; data stays."""
    platform = _platform(layout)
    with platform.exclusive():
        stopped = platform.down()
    print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


def status(layout: Layout, _: argparse.Namespace) -> int:
    """Show what runs; the exit status is 1 where something does not."""
    processes = _platform(layout).processes.values()
    console.print(status_table(processes))
    return 0 if all(process.pid for process in processes) else 1


def logs(layout: Layout, arguments: argparse.Namespace) -> None:
    """Show the end of the logs and what is added to them."""
    files = [layout.log_file(name) for name in arguments.names or _platform(layout).processes]
    os.execvp("tail", ["tail", "-n", str(arguments.lines), "-F", *map(str, files)])


def restart(layout: Layout, arguments: argparse.Namespace) -> None:
    """Stop and start processes."""
    platform = _platform(layout)
    names = arguments.names or list(platform.processes)
    with platform.exclusive(), Progress(console, names) as progress:
        platform.restart(names, progress.report)


def clean(layout: Layout, arguments: argparse.Namespace) -> None:
    """Stop everything and delete its data."""
    question = f"Delete {layout.home} with all accounts, keys, files and databases? [y/N] "
    if sys.stdin.isatty() and not arguments.yes and input(question).strip().lower() != "y":
        return
    platform = _platform(layout)
    with platform.exclusive():
        platform.down()
        platform.postgres.remove()
        shutil.rmtree(layout.home)
    print(f"Deleted {layout.home}.")


def _platform(layout: Layout) -> Platform:
    return Platform(layout, Credentials.open(layout.credentials_file))


def _interrupt(_: int, __: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the cleaning up that follows is not interrupted
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dozen_local", description="Run the whole platform on this machine."
    )
    default = Path(os.environ.get("DOZEN_HOME") or REPOSITORY / ".dozen")
    parser.add_argument(
        "--home", type=Path, default=default, help="directory of all state (default: %(default)s)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run in (up, down, status, logs, restart, clean):
        command = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        if run is up:
            command.add_argument(
                "--port-offset", type=int, metavar="N", help="add N to every port; kept for later"
            )
        if run in (logs, restart):
            command.add_argument(
                "names", nargs="*", metavar="NAME", help="such as chat or postgres; default: all"
            )
        if run is logs:
            command.add_argument(
                "--lines", type=int, default=50, help="lines to begin with (default: %(default)s)"
            )
        if run is clean:
            command.add_argument("--yes", action="store_true", help="do not ask")
    return parser


if __name__ == "__main__":
    sys.exit(main())
