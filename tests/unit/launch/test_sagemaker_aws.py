"""The AWS command line that takes the request: the real one where there is one, and a fake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from paths import TESTS
from test_sagemaker_request import SCRIPTS, VARIED

from hvdtools.launch.schedulers.sagemaker.training_job import submission

ARN = "arn:aws:sagemaker:us-east-1:111122223333:training-job/job-1"


class Server(HTTPServer):
    """SageMaker, with one action that keeps what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any]]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers["X-Amz-Target"], request))
        content = json.dumps({"TrainingJobArn": ARN}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def sagemaker() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(words: Sequence[str], text: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `words` with the text in a file on standard input: aws reads it twice, from the start."""
    with tempfile.TemporaryFile("w+") as file:
        file.write(text)
        file.seek(0)
        return subprocess.run(
            words, stdin=file, env=env, capture_output=True, text=True, timeout=120, check=False
        )


def aws(home: Path, words: Sequence[str], text: str, port: int) -> None:
    """Run the real command line, with keys of no account, against a server of ours."""
    done = run(
        [*words, "--endpoint-url", f"http://127.0.0.1:{port}"],
        text,
        {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"TrainingJobArn": ARN}


@pytest.mark.skipif(shutil.which("aws") is None, reason="there is no AWS command line here")
@pytest.mark.parametrize("name", VARIED)
def test_aws_sends_what_we_wrote(tmp_path: Path, name: str) -> None:
    plan = submission(VARIED[name])
    with sagemaker() as server:
        aws(tmp_path, plan.argv, plan.document, server.server_port)
    assert server.asked == [("SageMaker.CreateTrainingJob", json.loads(plan.document))]


@pytest.mark.skipif(shutil.which("aws") is None, reason="there is no AWS command line here")
@pytest.mark.parametrize("name", ["sagemaker.json", "sagemaker-toolkit.json"])
def test_aws_sends_the_hand_written_file(tmp_path: Path, name: str) -> None:
    file = SCRIPTS / name
    words = ("aws", "sagemaker", "create-training-job", "--cli-input-json", f"file://{file}")
    with sagemaker() as server:
        aws(tmp_path, words, "", server.server_port)
    assert server.asked == [("SageMaker.CreateTrainingJob", json.loads(file.read_text()))]


FAKE_AWS = """#!{python}
import json, sys
sys.path.insert(0, {tests!r})
import sagemaker_model
words = ["sagemaker", "create-training-job", "--cli-input-json", "file:///dev/stdin"]
assert sys.argv[1:5] == words, sys.argv
for _ in range(2):  # as aws does
    request = json.load(open(sys.argv[4].removeprefix("file://")))
problems = sagemaker_model.problems(request)
sys.exit("; ".join(problems) if problems else print(request["TrainingJobName"]))
"""


@pytest.mark.parametrize("name", VARIED)
def test_aws_takes_it_on_its_standard_input(tmp_path: Path, name: str) -> None:
    fake = tmp_path / "aws"
    fake.write_text(FAKE_AWS.format(python=sys.executable, tests=str(TESTS / "support")))
    fake.chmod(0o755)
    plan = submission(VARIED[name])
    done = run(plan.argv, plan.document, {"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "job-1\n"), done.stderr
