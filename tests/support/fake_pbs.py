"""A PBS for tests, of one job at a time: `main` is `qsub`, `qstat` or `qdel`.

It checks options and directives against the manual pages of OpenPBS (qsub(1B), qstat(1B),
qdel(1B), pbs_resources(7B)) and refuses what they do not allow. A job's script really runs, on
the host of qsub, with the variables of a PBS job and a node file. Like PBS, it ends a job at its
walltime with SIGTERM and then SIGKILL.

FAKE_PBS is the folder of its jobs, FAKE_PBS_NODES its nodes and their cores ("host1:4 host2:4").
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

KILL_DELAY_S = 1.0
KILLED_FOR_TIME = -29
_DURATION = r"(\d+:)?(\d+:)?\d+(\.\d+)?"
# Option -> what its argument looks like; None for an option without one. qsub(1B).
OPTIONS: dict[str, str | None] = {
    "-A": r".+",
    "-a": r"\d{4,12}(\.\d\d)?",
    "-e": r".+",
    "-h": None,
    "-J": r"\d+-\d+(:\d+)?(%\d+)?",
    "-j": r"oe|eo|n",
    "-k": r"[oed]{1,3}|n",
    "-l": r".+",
    "-M": r"\S+",
    "-m": r"[abej]+|n",
    "-N": r"[A-Za-z0-9_+-]\S{0,229}",
    "-o": r".+",
    "-P": r"\S+",
    "-p": r"-?\d{1,4}",
    "-q": r"[A-Za-z]\S*|@\S+",
    "-r": r"y|n",
    "-S": r"\S+",
    "-V": None,
    "-v": r"[^,=]+(=.*)?",
    "-W": r"[a-z_]+=.+",
}
# pbs_resources(7B): of a chunk, and of the whole job.
CHUNK = {
    "ncpus": r"\d+", "mpiprocs": r"\d+", "ompthreads": r"\d+", "ngpus": r"\d+", "host": r"\S+",
    "mem": r"\d+[kmgt]?b", "vmem": r"\d+[kmgt]?b", "arch": r"\S+", "vnode": r"\S+",
}  # fmt: skip
JOB = {
    "walltime": _DURATION, "cput": _DURATION, "place": r"(free|pack|scatter|vscatter)(:\S+)?",
    "software": r"\S+",
}  # fmt: skip


class RefusedError(Exception):
    """What the real program would print."""


def qsub(words: list[str]) -> str:
    given = options(words)
    text = sys.stdin.read()
    for line in directives(text):
        # Options of the command line win over directives.
        given = options(split(line)) | given
    if "-N" not in given:
        given["-N"] = ["STDIN"]
    select, walltime_s = resources(given.get("-l", []))
    return start(text, given, select, walltime_s)


def options(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, value = word[:2], word[2:]
        if name not in OPTIONS:
            raise RefusedError(f"qsub: invalid option -- '{word.lstrip('-')[:1]}'")
        pattern = OPTIONS[name]
        if pattern is None:
            found[name] = []
            continue
        value = value or (rest.pop(0) if rest else "")
        if not re.fullmatch(pattern, value, re.ASCII):
            raise RefusedError(f"qsub: illegal {name} value")
        found.setdefault(name, []).append(value)
    if "-J" in found:
        first, last = map(int, re.findall(r"\d+", found["-J"][0])[:2])
        if first >= last:
            raise RefusedError("qsub: illegal -J value")
    return found


def directives(script: str) -> list[str]:
    """The directives: what follows #PBS, up to the first line that the shell would run."""
    found = []
    for line in script.splitlines():
        if line.startswith("#PBS"):
            found.append(line.removeprefix("#PBS").strip())
        elif line.strip() and not line.startswith("#"):
            break
    return found


def split(directive: str) -> list[str]:
    """An option and its value: a directive holds one option here."""
    name, _, value = directive.partition(" ")
    return [name, value.strip()] if value else [name]


def resources(requests: list[str]) -> tuple[list[dict[str, str]], float | None]:
    chunks: list[dict[str, str]] = [{"ncpus": "1"}]
    walltime_s = None
    for request in requests:
        name, _, value = request.partition("=")
        if name == "select":
            chunks = [chunk for part in value.split("+") for chunk in read_chunks(part)]
        elif name in JOB:
            if not re.fullmatch(JOB[name], value, re.ASCII):
                raise RefusedError(
                    f"qsub: Illegal attribute or resource value Resource_List.{name}"
                )
            if name == "walltime":
                parts = [float(part) for part in value.split(":")]
                walltime_s = sum(part * 60**power for power, part in enumerate(reversed(parts)))
        elif name in CHUNK:
            raise RefusedError("qsub: job-wide resources may not be used with a select statement")
        else:
            raise RefusedError(f"qsub: Unknown resource: {name}")
    return chunks, walltime_s


def read_chunks(text: str) -> list[dict[str, str]]:
    count, *pairs = text.split(":")
    if not re.fullmatch(r"[1-9]\d*", count):
        count, pairs = "1", [count, *pairs]
    chunk = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name not in CHUNK:
            raise RefusedError(f"qsub: Unknown resource: {name}")
        if not equals or not re.fullmatch(CHUNK[name], value, re.ASCII):
            raise RefusedError("qsub: Illegal attribute or resource value Resource_List.select")
        chunk[name] = value
    return [chunk] * int(count)


def start(
    text: str, given: dict[str, list[str]], select: list[dict[str, str]], walltime_s: float | None
) -> str:
    folder = Path(os.environ["FAKE_PBS"])
    folder.mkdir(exist_ok=True)
    number = len(list(folder.glob("*.sh"))) + 1
    script = folder / f"{number}.sh"
    script.write_text(text)
    nodes = [node.split(":") for node in os.environ["FAKE_PBS_NODES"].split()]
    if len(select) > len(nodes):
        raise RefusedError("qsub: Job violates queue and/or server resource limits")
    lines, hosts = [], []
    for (name, cores), chunk in zip(nodes, select, strict=False):
        if int(chunk.get("ncpus", 1)) > int(cores):
            raise RefusedError("qsub: Job violates queue and/or server resource limits")
        lines += [name] * int(chunk.get("mpiprocs", 1))
        hosts.append(f"{name}/0*{chunk.get('ncpus', 1)}")
    node_file = folder / f"{number}.nodes"
    node_file.write_text("".join(f"{line}\n" for line in lines))
    elements = [""]
    if "-J" in given:
        first, last = map(int, re.findall(r"\d+", given["-J"][0])[:2])
        elements = [f"[{index}]" for index in range(first, last + 1)]
    names = [f"{number}{element}" for element in elements]
    for name in names:
        record(name, job_state="Q", comment="Not Running: no free node", Job_Name=given["-N"][-1])
    # What follows runs when qsub has ended, as a job does.
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        for name in names:
            run(name, script, node_file, "+".join(hosts), walltime_s)
        os._exit(0)
    return f"{number}{'[]' if '-J' in given else ''}.pbs"


def run(name: str, script: Path, node_file: Path, hosts: str, walltime_s: float | None) -> None:
    index = re.search(r"\[(\d+)\]", name)
    environment = {
        **{key: os.environ[key] for key in ("PATH", "HOME", "LANG", "USER") if key in os.environ},
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBID": f"{name}.pbs",
        "PBS_NODEFILE": str(node_file),
        "PBS_O_WORKDIR": str(Path.cwd()),
        **({"PBS_ARRAY_INDEX": index[1]} if index else {}),
    }
    job = subprocess.Popen(
        ["bash", str(script)], cwd=Path.home(), env=environment, start_new_session=True
    )
    record(name, job_state="R", exec_host=hosts, comment="", session_id=job.pid)
    try:
        status = job.wait(walltime_s)
        status = 256 - status if status < 0 else status
    except subprocess.TimeoutExpired:
        end(job.pid)
        job.wait()
        status = KILLED_FOR_TIME
    record(name, job_state="F", Exit_status=status)


def end(session: int) -> None:
    os.killpg(session, signal.SIGTERM)
    deadline_s = time.monotonic() + KILL_DELAY_S
    while time.monotonic() < deadline_s:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        return


def record(name: str, **changes: object) -> None:
    file = Path(os.environ["FAKE_PBS"]) / f"{name}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    variables = {"PBS_O_WORKDIR": str(Path.cwd())}
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"Variable_List": variables, **known, **changes}))
    new.rename(file)


def qstat(words: list[str]) -> str:
    *flags, number = words
    if flags != ["-x", "-t", "-f", "-F", "json"]:
        raise RefusedError(f"qstat: these options are not known here: {flags}")
    name = re.sub(r"(\[\])?(\.pbs)?$", "", number)
    files = sorted(Path(os.environ["FAKE_PBS"]).glob(f"{name}*.json"))
    files = [file for file in files if re.fullmatch(rf"{name}(\[\d+\])?", file.stem)]
    if not files:
        raise RefusedError(f"qstat: Unknown Job Id {number}")
    return json.dumps(
        {"Jobs": {f"{file.stem}.pbs": json.loads(file.read_text()) for file in files}}
    )


def qdel(words: list[str]) -> str:
    (number,) = words
    name = re.sub(r"(\[\])?(\.pbs)?$", "", number)
    for file in Path(os.environ["FAKE_PBS"]).glob(f"{name}*.json"):
        job = json.loads(file.read_text())
        if job["job_state"] == "R":
            end(job["session_id"])
    return ""


def main() -> None:
    """Be the program whose name this process was started under."""
    program = Path(sys.argv[0]).name
    try:
        answer = {"qsub": qsub, "qstat": qstat, "qdel": qdel}[program](sys.argv[1:])
    except RefusedError as refused:
        print(refused, file=sys.stderr)
        sys.exit(153 if "Unknown Job Id" in str(refused) else 2)
    if answer:
        print(answer)
