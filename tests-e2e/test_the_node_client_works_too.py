"""OpenAI's client for Node makes the first calls."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from journey import CHAT_MODEL, Access

SOURCE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def node_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, installed from its lock."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    project = tmp_path_factory.mktemp("node")
    shutil.copytree(SOURCE, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=project, check=True, capture_output=True)
    return project


def test_it_makes_the_first_calls(access: Access, node_project: Path) -> None:
    environment = {"OPENAI_BASE_URL": f"{access.url}/v1", "OPENAI_API_KEY": access.key}
    ran = subprocess.run(
        ["node", "first_calls.mjs", CHAT_MODEL],
        cwd=node_project,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert "Paris" in told["answer"]
    assert told["streamed"] == told["answer"]
    assert told["requestId"].startswith("req_")
    assert told["dimensions"] == 384
    assert CHAT_MODEL in told["models"]
    assert told["refusal"] == {"name": "AuthenticationError", "status": 401, "code": "invalid_api_key"}
