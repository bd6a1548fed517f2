"""The process of the events service."""

from dozen_chassis.run import run
from dozen_events.app import create_app
from dozen_events.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
