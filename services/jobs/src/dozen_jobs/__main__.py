"""The process of the jobs service."""

from dozen_chassis.run import run
from dozen_jobs.app import create_app
from dozen_jobs.settings import Settings

if __name__ == "__main__":
    run(create_app, Settings)
