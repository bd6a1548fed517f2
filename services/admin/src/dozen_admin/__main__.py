"""The process of the admin service."""

from dozen_admin.app import create_app
from dozen_admin.settings import Settings
from dozen_chassis.run import run

if __name__ == "__main__":
    run(create_app, Settings)
