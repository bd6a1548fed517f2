"""The process of the audio service."""

from dozen_chassis.run import run
from dozen_audio.app import create_app
from dozen_audio.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
