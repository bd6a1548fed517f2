"""Become the command that reconciles, with the settings that credits has on the local platform."""

import os
import sys
from pathlib import Path

from dozen_local.credentials import Credentials
from dozen_local.environment import inherited_environment, service_environment
from dozen_local.layout import Layout

layout = Layout.open(Path(os.environ.get("DOZEN_HOME", ".dozen")).resolve())
if not layout.credentials_file.exists():
    sys.exit("There is no platform here yet; `make up` first.")
credentials = Credentials.open(layout.credentials_file)
environment = service_environment("credits", layout, credentials, inherited_environment())
os.execve(sys.executable, [sys.executable, "-m", "dozen_credits.reconcile", *sys.argv[1:]], environment)
