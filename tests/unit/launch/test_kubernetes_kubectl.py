"""A real kubectl, where there is one, with an API server that knows the operator's rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import kubernetes_api
import kubernetes_rules
import pytest
import yaml
from test_kubernetes_manifest import GPUS, SCRIPTS, VARIED

from hvdtools.launch.schedulers.kubernetes.manifest import submission

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here"),
    pytest.mark.skipif(not kubernetes_rules.has_crd(), reason=kubernetes_rules.WHY_NO_CRD),
]


def kubectl(home: Path, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl with a home that no cluster is known in."""
    return subprocess.run(
        ["kubectl", *words],
        input=text,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", VARIED)
def test_kubectl_reads_what_we_wrote(tmp_path: Path, name: str) -> None:
    """Its reader of YAML is another than ours."""
    document = submission(VARIED[name]).document
    done = kubectl(tmp_path, "label", "--local", "-f", "-", "seen=yes", "-o", "json", text=document)
    seen, ours = json.loads(done.stdout), yaml.safe_load(document)
    ours["metadata"].setdefault("labels", {})["seen"] = "yes"
    assert seen == ours


@pytest.mark.parametrize("name", VARIED)
def test_kubectl_creates_the_job(tmp_path: Path, name: str) -> None:
    plan = submission(VARIED[name])
    with kubernetes_api.api_server() as server:
        done = kubectl(tmp_path, *plan.argv[1:], "--server", server.url, text=plan.document)
    assert done.returncode == 0, done.stderr
    ((path, created),) = server.created
    ours = yaml.safe_load(plan.document)
    namespace = ours["metadata"].setdefault("namespace", "default")
    assert path == f"/apis/kubeflow.org/v2beta1/namespaces/{namespace}/mpijobs"
    assert created["spec"] == ours["spec"]


def test_kubectl_creates_the_hand_written_file(tmp_path: Path) -> None:
    with kubernetes_api.api_server() as server:
        file = str(SCRIPTS / "mpijob.yaml")
        done = kubectl(tmp_path, "create", "-f", file, "--server", server.url)
    assert done.returncode == 0 and len(server.created) == 1, done.stderr


def test_a_field_that_the_cluster_does_not_know_is_refused(tmp_path: Path) -> None:
    plan = submission(GPUS)
    wrong = plan.document.replace("slotsPerWorker", "slotsForWorker")
    with kubernetes_api.api_server() as server:
        done = kubectl(tmp_path, *plan.argv[1:], "--server", server.url, text=wrong)
    assert done.returncode == 1 and "slotsForWorker" in done.stderr and not server.created
