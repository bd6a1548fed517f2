"""The process of the completion service."""

from dozen_chassis.run import run
from dozen_completion.app import create_app
from dozen_completion.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
