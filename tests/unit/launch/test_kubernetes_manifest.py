"""MPIJobs: against the operator's schema and rules, against golden files, through a kubectl."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_operator
import kubernetes_rules
import pytest
import yaml
from paths import GOLDEN, SCRIPTS, TESTS

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.machine import Machine
from hvdtools.launch.planner import make_submission
from hvdtools.launch.schedulers.kubernetes import launcher
from hvdtools.launch.schedulers.kubernetes.manifest import submission
from hvdtools.launch.schedulers.kubernetes.request import Kubernetes
from hvdtools.launch.schedulers.kubernetes.text import to_yaml
from hvdtools.launch.spec import JobSpec

HOSTILE = (
    *("./a b.sh", 'say "hi"', "it's", "; echo foo", "$HOME", "new\nline\n", "", "*", "-n", "--"),
    *("$(VAR)", "$$", "$$(VAR)", "$(unclosed", "yes", "on", "y", "null", "1e3", "0x10", "1_000"),
    *("~", "- a", "a: b", "#", "é", "\u2028", "🐎", "{}", "[]", "&a", "!tag", "%", "@", "`", "\t"),
)
needs_crd = pytest.mark.skipif(not kubernetes_rules.has_crd(), reason=kubernetes_rules.WHY_NO_CRD)

# What a submission needs to know of the machine is nothing.
MACHINE = Machine(1, False, "/env/bin/python", None, None, ())


def job(
    command: tuple[str, ...] = ("python", "train.py"), ranks: int = 4, **fields: Any
) -> JobSpec:
    """A job of 4 ranks on 2 workers, unless `fields` say otherwise."""
    general = {name: fields.pop(name) for name in list(fields) if name in JobSpec.__annotations__}
    target = Kubernetes(**{"image": "registry.example.com/train:1", **fields})
    return JobSpec(command, ranks, on=target, **{"nodes": 2, **general})


GPUS = job(
    ("python", "train.py", "--lr", "0.1"),
    ranks=16,
    nodes=2,
    ranks_per_node=8,
    gpus_per_node=8,
    cpus_per_rank=12,
    name="resnet",
    namespace="ml",
    memory="512Gi",
    shared_memory="64Gi",
    volume=("imagenet:/data:ro", "results:/results"),
    queue="gpus",
    node_selector=("cloud.example.com/gpu=h100",),
    toleration=("nvidia.com/gpu", "team=ml:NoSchedule"),
    service_account="trainer",
    image_pull_secret=("registry",),
    interface="eth0",
    env=(("NCCL_DEBUG", "WARN"),),
    timeout_s=7200.5,
    restarts=3,
    ttl=86400,
    clean_pods="All",
)
VARIED = {
    "gpus": GPUS,
    "hostile": job(HOSTILE, env=tuple((f"V{n}", text) for n, text in enumerate(HOSTILE))),
    "root": job(run_as_root=True, ranks=3, nodes=None),
    "mpich": job(mpi="MPICH", interface="eth0", env=(("V", "$(POD_IP)"),)),
}


def tree_of(spec: JobSpec) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(submission(spec).document)
    return tree


def container_of(spec: JobSpec, role: str) -> dict[str, Any]:
    pod = tree_of(spec)["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]
    container: dict[str, Any] = pod["containers"][0]
    return container


@pytest.mark.parametrize("name", VARIED)
def test_manifest_equals_the_golden_file(name: str) -> None:
    assert submission(VARIED[name]).document == (GOLDEN / f"mpijob-{name}.yaml").read_text()


@needs_crd
@pytest.mark.parametrize("name", VARIED)
def test_cluster_accepts_the_manifest(name: str) -> None:
    assert kubernetes_rules.problems(tree_of(VARIED[name])) == []


@needs_crd
def test_cluster_accepts_the_hand_written_file() -> None:
    written = yaml.safe_load((SCRIPTS / "mpijob.yaml").read_text())
    assert kubernetes_rules.problems(written) == []


@needs_crd
@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(slots=2),
        lambda job: job["spec"].update(slotsPerWorker="2"),
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"].update(replicas=0),
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"].update(restartPolicy="Always"),
        lambda job: job["spec"]["runPolicy"].update(cleanPodPolicy="Some"),
        lambda job: job["metadata"].update(name="a" * 60),
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][
            0
        ].update(args=[1]),
    ],
)
def test_the_rules_can_say_no(spoil: Any) -> None:
    tree = tree_of(GPUS)
    spoil(tree)
    assert kubernetes_rules.problems(tree)


def test_the_hand_written_file_is_what_the_command_fills_in() -> None:
    """The same job, said to the command, gives the same file; but cores come with threads."""
    written = yaml.safe_load((SCRIPTS / "mpijob.yaml").read_text())
    image = "registry.example.com/hvdtools:latest"
    made = tree_of(job(image=image, memory="32Gi", cpus_per_rank=4))
    for role in written["spec"]["mpiReplicaSpecs"].values():
        (container,) = role["template"]["spec"]["containers"]
        container.setdefault("args", [])
    launching = written["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
    launching["env"].append({"name": "OMP_NUM_THREADS", "value": "4"})
    launching["args"][-2:-2] = ["-x", "OMP_NUM_THREADS"]
    made["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["args"] = []
    assert made == written


@pytest.mark.parametrize("spec", [GPUS, VARIED["hostile"]], ids=["gpus", "hostile"])
def test_every_variable_of_the_launcher_is_handed_to_the_ranks(spec: JobSpec) -> None:
    container = container_of(spec, "Launcher")
    args = container["args"]
    handed_on = {args[n + 1] for n, word in enumerate(args) if word == "-x"}
    own = {each["name"] for each in container["env"]}
    assert own - handed_on == {name for name in own if name.startswith("PRTE_MCA_")}
    assert args[:2] == ["-n", str(spec.ranks)]


@pytest.mark.parametrize("mpi", ["OpenMPI", "MPICH"])
def test_hostile_words_arrive_as_they_are(mpi: str) -> None:
    spec = job(HOSTILE, mpi=mpi, env=tuple((f"V{n}", text) for n, text in enumerate(HOSTILE)))
    container = container_of(spec, "Launcher")
    variables: dict[str, str] = {"VAR": "expanded"}
    for each in container["env"]:
        if "value" in each:
            variables[each["name"]] = kubernetes_operator.expand(each["value"], variables)
    assert [variables[f"V{n}"] for n in range(len(HOSTILE))] == list(HOSTILE)
    words = [kubernetes_operator.expand(word, variables) for word in container["args"]]
    assert tuple(words[-len(HOSTILE) :]) == HOSTILE


def test_literal_undoes_what_kubernetes_expands() -> None:
    dice = random.Random(1)
    for _ in range(2000):
        text = "".join(dice.choices("$$$(())A ", k=dice.randrange(12)))
        assert kubernetes_operator.expand(launcher.literal(text), {"A": "!"}) == text


def test_texts_that_a_reader_could_take_for_something_else_are_quoted() -> None:
    for text in HOSTILE:
        line = to_yaml({"text": text})
        assert yaml.safe_load(line) == {"text": text}
        assert line.startswith('text: "'), line
    assert to_yaml({"text": "train.py"}) == "text: train.py\n"


def test_a_lone_colon_goes_to_mpirun_inside_one_word() -> None:
    args = container_of(job(("./run", ":", "$(A)")), "Launcher")["args"]
    assert args[-3:] == ["sh", "-c", "exec ./run : '$$(A)'"]


FAKE_KUBECTL = """#!{python}
import sys
sys.path.insert(0, {tests!r})
import kubernetes_rules, yaml
assert sys.argv[1:] == ["create", "-f", "-", "--namespace", "ml"], sys.argv
job = yaml.safe_load(sys.stdin)
problems = kubernetes_rules.problems(job)
if problems:
    sys.exit("error: " + problems[0])
print("mpijob.kubeflow.org/" + job["metadata"]["name"] + " created")
"""


@needs_crd
def test_kubectl_takes_it_on_its_standard_input(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(FAKE_KUBECTL.format(python=sys.executable, tests=str(TESTS / "support")))
    kubectl.chmod(0o755)
    plan = submission(GPUS)
    done = subprocess.run(
        plan.argv,
        input=plan.document,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "mpijob.kubeflow.org/resnet created\n"), (
        done.stderr
    )


def test_what_the_user_is_told() -> None:
    plan = submission(GPUS)
    assert (plan.on, plan.ranks, plan.program) == ("kubernetes", 16, "kubectl")
    assert plan.note == (
        "16 ranks on 2 workers with 8 slots each, as an MPIJob in namespace ml; its output: "
        "kubectl logs -f -n ml -l training.kubeflow.org/job-name=resnet,"
        "training.kubeflow.org/job-role=launcher"
    )
    assert submission(job()).argv == ("kubectl", "create", "-f", "-")


@pytest.mark.parametrize(
    ("fields", "workers", "slots"),
    [
        ({"nodes": None}, 1, 4),
        ({"nodes": 4}, 4, 1),
        ({"nodes": None, "ranks_per_node": 2}, 2, 2),
        ({"nodes": None, "ranks_per_node": 3}, 2, 3),
        ({"nodes": 2, "ranks": 3}, 2, 2),
    ],
)
def test_workers_and_slots(fields: dict[str, Any], workers: int, slots: int) -> None:
    spec = tree_of(job(**fields))["spec"]
    assert spec["mpiReplicaSpecs"]["Worker"]["replicas"] == workers
    assert spec["slotsPerWorker"] == slots


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image": None}, "Say which image"),
        ({"image": ""}, "Say which image"),
        ({"image": "a b"}, "not the name of an image"),
        ({"name": "Train"}, "lower case"),
        ({"name": "1train"}, "a letter first"),
        ({"name": "train-"}, "no dash last"),
        ({"name": "t" * 55}, "64 characters"),
        ({"name": "t" * 54, "nodes": 11, "ranks": 11}, "64 characters"),
        ({"namespace": "a.b"}, "--namespace a.b"),
        ({"memory": "64 GB"}, "as in 64Gi"),
        ({"memory": "0"}, "as in 64Gi"),
        ({"shared_memory": "1GiB"}, "--shared-memory 1GiB"),
        ({"gpu_resource": "gpu"}, "nvidia.com/gpu"),
        ({"volume": ("data",)}, "CLAIM:/PATH"),
        ({"volume": ("data:relative",)}, "CLAIM:/PATH"),
        ({"volume": ("data:/d:rw",)}, "CLAIM:/PATH"),
        ({"volume": ("Data:/d",)}, "--volume Data"),
        ({"volume": ("a:/d", "b:/d/")}, "Two volumes"),
        ({"volume": ("a:/dev/shm",)}, "/dev/shm"),
        ({"queue": "Q"}, "--queue Q"),
        ({"node_selector": ("zone",)}, "LABEL=VALUE"),
        ({"node_selector": ("a b=c",)}, "LABEL=VALUE"),
        ({"toleration": ("gpu:Sometimes",)}, "NoSchedule"),
        ({"toleration": ("",)}, "not understood"),
        ({"service_account": "A"}, "--service-account A"),
        ({"image_pull_secret": ("A",)}, "--image-pull-secret A"),
        ({"clean_pods": "Some"}, "None, Running"),
        ({"mpi": "Intel"}, "MPICH, OpenMPI"),
        ({"ttl": -1}, "--ttl -1"),
        ({"timeout_s": 1e12}, "--timeout"),
        ({"launcher": "horovodrun"}, "--launcher horovodrun"),
        ({"oversubscribe": True}, "--oversubscribe does not apply to --on kubernetes"),
        ({"distribution": "cyclic"}, "--distribution"),
        ({"bind": "numa"}, "--bind"),
        ({"show_binding": True}, "--show-binding"),
        ({"log_dir": Path("logs")}, "kubectl logs"),
        ({"pass_on": ("--verbose",)}, "--pass does not"),
        ({"env": (("NVIDIA_VISIBLE_DEVICES", "0"),)}, "would be lost"),
        ({"command": ("./a\udcff",)}, "not UTF-8"),
        ({"ranks": 5, "nodes": 4}, "fill 3 of 4 nodes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(HvdtoolsError) as caught:
        make_submission(job(**fields), MACHINE)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_longest_name_fits() -> None:
    assert tree_of(job(name="t" * 54))["metadata"] == {"name": "t" * 54}


def test_every_field_of_a_job_is_used_or_refused() -> None:
    import dataclasses

    used = {"command", "ranks", "launcher", "env", "on", "nodes", "ranks_per_node", "gpus_per_node",
            "cpus_per_rank", "interface", "name", "timeout_s", "restarts"}  # fmt: skip
    fields = {field.name for field in dataclasses.fields(JobSpec)}
    refused = {{"pass": "pass_on"}.get(option, option) for option in Kubernetes.unsupported}
    assert fields == used | refused - {"mpirun"}  # which is no field of a job
