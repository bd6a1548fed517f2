"""The process of the storage service."""

from dozen_chassis.run import run
from dozen_storage.app import create_app
from dozen_storage.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
