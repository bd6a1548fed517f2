"""The process of the gateway service."""

from dozen_chassis.run import run
from dozen_gateway.app import create_app
from dozen_gateway.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
