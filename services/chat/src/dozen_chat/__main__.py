"""The process of the chat service."""

from dozen_chassis.run import run
from dozen_chat.app import create_app
from dozen_chat.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
