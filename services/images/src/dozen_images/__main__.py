"""The process of the images service."""

from dozen_chassis.run import run
from dozen_images.app import create_app
from dozen_images.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
