"""The process of the models service."""

from dozen_chassis.run import run
from dozen_models.app import create_app
from dozen_models.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
