"""The process of the embeddings service."""

from dozen_chassis.run import run
from dozen_embeddings.app import create_app
from dozen_embeddings.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
