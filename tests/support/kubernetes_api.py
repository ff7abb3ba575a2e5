"""A Kubernetes API server with MPIJobs in it and nothing else, for a real kubectl."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kubernetes_rules

_GROUP_VERSION = {"groupVersion": "kubeflow.org/v2beta1", "version": "v2beta1"}
_GROUP = {"name": "kubeflow.org", "versions": [_GROUP_VERSION], "preferredVersion": _GROUP_VERSION}
_JOBS = {"name": "mpijobs", "singularName": "mpijob", "namespaced": True, "kind": "MPIJob",
         "verbs": ["create", "get"]}  # fmt: skip
# By this kubectl knows that the server refuses unknown fields itself, and leaves it to it.
_PATCH = {
    "x-kubernetes-group-version-kind": {
        "group": "kubeflow.org",
        "version": "v2beta1",
        "kind": "MPIJob",
    },
    "parameters": [{"name": "fieldValidation", "in": "query"}],
    "responses": {},
}
_HERE = "apis/kubeflow.org/v2beta1"
_ANSWERS: dict[str, dict[str, Any]] = {
    "/openapi/v3": {"paths": {_HERE: {"serverRelativeURL": f"/openapi/v3/{_HERE}"}}},
    f"/openapi/v3/{_HERE}": {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0"},
        "paths": {f"/{_HERE}/namespaces/{{namespace}}/mpijobs/{{name}}": {"patch": _PATCH}},
    },
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]},
    f"/{_HERE}": {
        "kind": "APIResourceList",
        "groupVersion": "kubeflow.org/v2beta1",
        "resources": [_JOBS],
    },
}


class ApiServer(ThreadingHTTPServer):
    """Keeps what was created, after the checks of the cluster."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.created: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        answer = _ANSWERS.get(self.path.partition("?")[0])
        if answer is None:
            self._refuse(404, "NotFound", "not found")
        else:
            self._answer(200, answer)

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        problems = kubernetes_rules.problems(job)
        if problems:
            self._refuse(422, "Invalid", problems[0])
            return
        metadata = job["metadata"]
        metadata.setdefault("name", f"{metadata.get('generateName')}abcde")
        self.server.created.append((self.path.partition("?")[0], job))
        self._answer(201, job)

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        self._answer(code, {**status, "reason": reason, "message": message, "code": code})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def api_server() -> Iterator[ApiServer]:
    server = ApiServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
