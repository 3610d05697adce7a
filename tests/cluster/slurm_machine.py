"""Slurm on this machine: a controller, several nodes and munge, as long as a test wants them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
NODES, CORES = 3, 2

_READY_WITHIN = 60.0
_END_WITHIN = 60.0
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
# A requeued job begins when the credentials of its last start have expired: else 2 minutes.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# More cores and GPUs than the machine may have.
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
SlurmdTimeout=60
ReturnToService=2
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=60 PriorityTier=1
PartitionName=gentle Nodes=ALL MaxTime=60 PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=1 PriorityTier=1
PartitionName=closed Nodes=ALL MaxTime=60 State=DOWN
"""


def lacking() -> str | None:
    """Why no Slurm can be started here; null where it can."""
    if os.geteuid() != 0:
        return "no Slurm: its daemons are started by root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"no Slurm: {', '.join(missing)}; apt-get install slurmctld slurmd munge"
    return None


class SlurmMachine:
    """Slurm with its own configuration, ports and folder; a node has two cores and a GPU by name.

    Args:
        folder: for its files; its path is short, since a socket's has 107 characters at most.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> Mapping[str, str]:
        """What commands need to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def start(self) -> None:
        """Start every daemon and wait until all nodes are idle."""
        self._configure()
        munge = self.folder / "munge"
        self._start(
            "munged",
            "--foreground",
            "--force",  # it runs as root here
            f"--socket={munge}/socket",
            f"--key-file={munge}/key",
            f"--pid-file={munge}/pid",
            f"--seed-file={munge}/seed",
            f"--log-file={munge}/log",
        )
        self._wait((munge / "socket").exists)
        self._start("slurmctld", "-D", "-i")
        for number in range(1, NODES + 1):
            self._start("slurmd", "-D", "-N", f"node{number}")
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until all nodes are there, and nothing runs on them."""
        idle = "idle\n" * NODES
        self._wait(lambda: self.run("sinfo", "-h", "-N", "-p", "low", "-o", "%T") == idle)

    def lose(self, node: str) -> None:
        """Have everything on a node end at once, as by a power cut."""
        [daemon] = [each for each in self.processes if list(each.args)[-1] == node]
        daemon.kill()
        daemon.wait()
        self.processes.remove(daemon)
        tasks = _tasks(node)
        keepers = {pid for pid in map(_parent, tasks) if _read(pid, "comm") == b"slurmstepd\n"}
        for pid in (*keepers, *tasks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def restore(self, node: str) -> None:
        """Have a node that was lost come back."""
        self._start("slurmd", "-D", "-N", node)
        self.run("scontrol", "update", f"nodename={node}", "state=resume")
        self.wait_until_idle()

    def stop(self) -> None:
        """Cancel all jobs, then end every daemon."""
        if len(self.processes) > 1:
            self.run("scancel", "--user=root", "--full", "--signal=KILL")
            self.run("scancel", "--user=root")
            self._wait(lambda: not self.run("squeue", "-h"), _END_WITHIN)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def run(self, *command: str, text: str | None = None) -> str:
        """What a command of Slurm prints; nothing where it fails."""
        result = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            input=text,
            text=True,
            check=False,
        )
        return result.stdout if result.returncode == 0 else ""

    def told(self) -> str:
        """The last lines of the daemons' logs."""
        logs = [self.folder / "slurmctld.log", *sorted(self.folder.glob("*.log"))]
        return "\n".join(log.read_text(errors="replace")[-1500:] for log in logs if log.is_file())

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        controller, *ports = free_ports(NODES + 1)
        nodes = "\n".join(
            f"NodeName=node{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={CORES} RealMemory=4000 Gres=gpu:1 State=UNKNOWN"
            for number, port in enumerate(ports, 1)
        )
        text = _CONFIGURATION.format(
            host=host, controller=controller, folder=self.folder, nodes=nodes
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(
            f"NodeName=node[1-{NODES}] Name=gpu File=/dev/null\n"
        )
        munge = self.folder / "munge"
        munge.mkdir(mode=0o755)  # whoever asks munged must be able to enter it
        key = munge / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        for name in ("state", *(f"spool-node{number}" for number in range(1, NODES + 1))):
            (self.folder / name).mkdir()

    def _start(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=_PATH)
        with (self.folder / f"{program}.out.log").open("ab") as log:
            process = subprocess.Popen(
                [str(path), *arguments],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)

    def _wait(self, condition: Callable[[], object], within: float = _READY_WITHIN) -> None:
        end = time.monotonic() + within
        while not condition():
            dead = [process.args for process in self.processes if process.poll() is not None]
            if dead or time.monotonic() > end:
                raise RuntimeError(f"Slurm does not answer; ended: {dead}\n{self.told()}")
            time.sleep(0.1)


@contextlib.contextmanager
def slurm_machine() -> Iterator[SlurmMachine]:
    """Slurm for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    machine = SlurmMachine(folder)
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _tasks(node: str) -> list[int]:
    """All that jobs have on a node."""
    sign = f"SLURMD_NODENAME={node}".encode()
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if sign in _read(pid, "environ").split(b"\0")]


def _parent(pid: int) -> int:
    """The process that started another; 0 if that lives no more."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _read(pid: int, name: str) -> bytes:
    """A file on a process; empty if it lives no more."""
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""
