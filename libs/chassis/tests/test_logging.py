"""Log lines, as a process writes them."""

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import logging
from opentelemetry import context
from dozen_chassis.logging import configure_logging, request_id
from dozen_chassis.settings import AdmittedSettings
from dozen_chassis.telemetry import trace_context

configure_logging("sample", "info")
log = logging.getLogger("dozen_sample.service")
log.debug("not written")
log.info("before")
request_id.set("req_1")
context.attach(trace_context({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}))
log.info("said %s", "hello", extra={"attempt": 2})
logging.getLogger("nats").info("chatter")
try:
    raise ValueError("broken")
except ValueError:
    log.exception("failed")
secrets = {"grpc_key": "s3cret", "admission_key": "s3cret", "nats_url": "nats://u:s3cret@h"}
log.info("settings: %r", AdmittedSettings(postgres_dsn="postgresql://u:s3cret@h/d", **secrets))
"""


def logged() -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert not done.stdout
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_each_line_is_an_object_that_says_what_it_belongs_to() -> None:
    before, said, failed, settings = logged()
    assert [line["message"] for line in (before, said, failed)] == ["before", "said hello", "failed"]
    assert (before["request_id"], before["trace_id"]) == (None, None)
    assert {
        key: said[key] for key in ("level", "logger", "service", "request_id", "trace_id", "attempt")
    } == {
        "level": "INFO",
        "logger": "dozen_sample.service",
        "service": "sample",
        "request_id": "req_1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "attempt": 2,
    }
    assert said["time"]
    assert failed["level"] == "ERROR"
    assert "ValueError: broken" in failed["exc_info"]
    assert "s3cret" not in json.dumps(settings)
