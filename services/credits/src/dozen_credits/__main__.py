"""The process of the credits service."""

from dozen_chassis.run import run
from dozen_credits.app import create_app
from dozen_credits.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
