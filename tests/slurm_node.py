"""A real SLURM on this machine, of one node, without systemd or cgroups, for as long as a test needs it.

    with slurm_node(folder) as environment: ...       # SLURM_CONF and PATH for whatever is to use it
    python tests/slurm_node.py COMMAND ...            # runs a command in such a SLURM

All paths are in ``folder``, all ports are free ones, the key is a new one. The three services run in the foreground as
children of this process: they are stopped on leaving, and by the kernel should this process be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
#: where Debian keeps services
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
MinJobAge=30
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why there can be no SLURM here; empty where there can."""
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=PATH)]:
        return f"SLURM is not installed: no {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "only root can start SLURM's services"


def free_ports(count: int) -> list[int]:
    """So many different ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _wait_for(true: Callable[[], bool], what: str, logs: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            said = "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(logs.glob("*.log")))
            raise RuntimeError(f"no {what} after {seconds:g} s\n{said}")
        time.sleep(0.2)


@contextlib.contextmanager
def slurm_node(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Starts SLURM in ``folder``, an empty one; gives the environment that its commands need."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    controller_port, node_port = free_ports(2)
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(host=host, folder=folder, cpus=cpus, controller_port=controller_port, node_port=node_port)
    )
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": PATH}
    munge = [
        "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}",
        f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log",
    ]  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / f"{command[0]}-printed.log").open("wb") as log:
            started.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, preexec_fn=_die_with_parent)
            )

    def idle() -> bool:
        said = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
        return said.stdout.strip() == "idle"

    try:
        start(*munge)
        _wait_for((folder / "munge.socket").exists, "munged", folder)
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D")
        _wait_for(idle, "idle node", folder)
        yield environment
    finally:
        for signal_name in ("TERM", "KILL"):
            _quietly(["scancel", "--full", f"--signal={signal_name}", "--user=root"], environment)
        for service in reversed(started):
            service.terminate()
        for service in reversed(started):
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.wait(5)
        _kill_all(folder)
        for service in started:
            service.wait()


def _quietly(command: list[str], environment: dict[str, str]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, env=environment, capture_output=True, check=False, timeout=20)


def _kill_all(folder: Path) -> None:
    """What is left of services and jobs: processes with this configuration in their environment, and those that write
    this log (SLURM's keeper of a job clears its environment)."""
    conf, log = str(folder / "slurm.conf"), str(folder / "slurmd.log")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            own = process.environ().get("SLURM_CONF") == conf
            keeps = process.name() == "slurmstepd" and log in [file.path for file in process.open_files()]
            if process.pid != os.getpid() and (own or keeps):
                process.kill()


if __name__ == "__main__":
    if reason := why_not():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as scratch, slurm_node(Path(scratch)) as found:
        sys.exit(subprocess.run(sys.argv[1:], env=found, check=False).returncode)
