"""PostgreSQL refuses to run as root; this finds another user and places which that user can reach."""

import os
import pwd
import tempfile
from pathlib import Path


def unprivileged_user() -> int | None:
    """Give the id of the user `nobody` where we are root, else None: everything runs as ourselves."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def reachable(path: Path) -> bool:
    """Tell whether every user may pass through the folders above a path."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def own_directory(path: Path, user_id: int | None) -> Path:
    """Make a directory for a user alone and return where it is.

    Below a folder that is closed to that user, such as `/root`, the path becomes a link to a directory
    outside.
    """
    if user_id is not None and not path.exists() and not reachable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tempfile.mkdtemp(prefix="dozen-", dir="/var/tmp"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user_id is not None:
        os.chown(path, user_id, user_id)
    return path.resolve()
