"""The process of the audio service."""

from dozen_audio.app import create_app
from dozen_audio.settings import Settings
from dozen_chassis.run import run

if __name__ == "__main__":
    run(create_app, Settings)
