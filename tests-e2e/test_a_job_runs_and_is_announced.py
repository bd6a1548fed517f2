"""A chat task is queued, done by a worker, and announced on the event stream."""

import json
from typing import Any

from dozen_testing.conditions import eventually
from journey import CHAT_MODEL, Access


async def test_its_result_is_kept_and_its_end_is_heard(access: Access) -> None:
    async with access.http() as http:
        newest = (await http.get("/events", params={"limit": 1, "order": "desc"})).json()["data"]
        task = {
            "task_type": "chat.completions",
            "parameters": {
                "model": CHAT_MODEL,
                "messages": [{"role": "user", "content": "Which city is the capital of France?"}],
                "temperature": 0,
                "max_tokens": 16,
            },
        }
        created = await http.post("/jobs", json=task)
        assert created.is_success, created.text
        job_id = created.json()["id"]

        async def finished() -> dict[str, Any]:
            job = (await http.get(f"/jobs/{job_id}")).json()
            return job if job["status"] not in ("queued", "running") else {}

        job = await eventually(finished, 30)
        assert job["status"] == "succeeded", job
        assert "Paris" in job["result"]["choices"][0]["message"]["content"]

        since = {"after": newest[0]["id"]} if newest else {"after": "0"}
        headers = {"accept": "text/event-stream"}
        async with http.stream("GET", "/events", params=since, headers=headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["data"].get("id") == job_id:
                    assert json.loads(line[6:])["type"] == "job.completed"
                    return
    raise AssertionError("the stream ended without the event")


async def test_a_job_for_an_unknown_model_is_refused_at_once(access: Access) -> None:
    async with access.http() as http:
        task = {"task_type": "chat.completions", "parameters": {"model": "nothing", "messages": []}}
        response = await http.post("/jobs", json=task)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
