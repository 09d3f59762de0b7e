"""A real Slurm of two nodes on this machine, for tests: Debian's packages, brought up by root, without systemd.

One cluster for a process of pytest. Numbers of jobs differ between clusters, since ranks meet at ports that follow from
them, 20001 to 29999; a cluster's own lie above these. Its daemons are children that die with it, in a folder of their
own, listening on this machine alone. A node claims four cores and two GPUs that are none, so jobs wait for each other
as on a cluster.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

import accounting_here
from debian import missing
from megavox.core.processes import die_with_parent

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", *accounting_here.PACKAGES)
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "mariadbd", "slurmdbd")
NODES = ("megavox1", "megavox2")
READY_S = 60.0

CONFIGURATION = """
ClusterName=megavox
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
LaunchParameters=disable_send_gids
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,NoShared
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1024
GresTypes=gpu
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=200000,requeue_delay=1
MinJobAge={remembers}
FirstJobId={number}
KillWait=3
MaxArraySize=60001
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobCompType=jobcomp/none
{accounting}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=30 PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE DefaultTime=30 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
"""


@cache
def the_cluster() -> Cluster:
    """The cluster, which is up; skips the test where there is none and none may be made."""
    with Path(tempfile.gettempdir(), "megavox-slurm.lock").open("w") as lock:  # other processes of pytest
        fcntl.flock(lock, fcntl.LOCK_EX)
        why = missing(PROGRAMS, PACKAGES)
        if why:
            pytest.skip(f"no Slurm for tests: {why}")
        folder = Path(tempfile.mkdtemp(prefix="megavox-slurm-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        cluster = Cluster(folder)
        cluster.up()
        return cluster


class Cluster:
    """The daemons.

    Args:
        folder: for everything that they write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._configuration = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.variables = {"SLURM_CONF": str(self._configuration)}  # with which Slurm's commands find it

    def up(self) -> None:
        """Start everything and wait until the nodes take jobs."""
        for place in ("state", "spool"):
            (self._folder / place).mkdir()
        key = self._folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        self._first_port = _free_ports(1 + len(NODES) + accounting_here.PORTS)
        self._name_hosts()
        self._configure()
        accounting_here.made_database(self._folder)
        self._start("munged", "munged", "--foreground", "--force", f"--socket={self._folder}/munge.socket",
                    f"--key-file={key}", f"--pid-file={self._folder}/munged.pid",
                    f"--log-file={self._folder}/munged.log", f"--seed-file={self._folder}/munged.seed")
        self._until("munged", "munge", "-n", f"--socket={self._folder}/munge.socket")
        self._start("mariadbd", *accounting_here.database(self._folder, self._accounting_port))
        self._until("mariadbd", *accounting_here.with_rights(self._folder))
        self._start("slurmdbd", "slurmdbd", "-D")
        self._until("slurmdbd", "sacctmgr", "-i", "add", "cluster", "megavox")
        self.start_controller()
        for node in NODES:
            self._start(node, "slurmd", "-D", "-N", node, "-f", str(self._configuration))
        self._until_idle()

    def start_controller(self) -> None:
        """Start the controller, for the first time or once more."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self._configuration))
        self._until("slurmctld", "scontrol", "ping")

    def stop_controller(self) -> None:
        """Stop the controller; jobs run on."""
        self._daemons["slurmctld"].terminate()
        self._daemons["slurmctld"].wait()

    def release(self, number: str) -> None:
        """Let a job that was started again begin soon: Slurm makes it wait for two minutes."""
        begin = time.monotonic()
        shown = ""
        while not {"Restarts=1", "JobState=PENDING"} <= set(shown.split()):
            assert time.monotonic() - begin < 4 * READY_S, shown
            time.sleep(0.5)
            shown = self._run("scontrol", "show", "job", number).stdout
        time.sleep(2)  # its first attempt is still being cleared away, and would be in the way of the second
        self._run("scontrol", "update", f"JobId={number}", "StartTime=now")

    def remember_jobs(self, seconds: int) -> None:
        """How long the queue knows jobs that have ended."""
        self._configure(seconds)
        assert self._run("scontrol", "reconfigure").returncode == 0

    @property
    def _accounting_port(self) -> int:
        return self._first_port + 1 + len(NODES)

    def _configure(self, remembers: int = 300) -> None:
        first = self._first_port
        (self._folder / "gres.conf").write_text("".join(
            f"NodeName={node} Name=gpu File={device}\n" for node in NODES for device in ("/dev/null", "/dev/zero")))
        (self._folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        host = socket.gethostname()
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={first + 1 + number} CPUs=4 Boards=1 "
            "SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4096 Gres=gpu:2 State=UNKNOWN"
            for number, node in enumerate(NODES))
        accounting = accounting_here.configured(self._folder, self._accounting_port)
        self._configuration.write_text(CONFIGURATION.format(
            host=host, port=first, number=1 + first // 10 * 487 % 9000, folder=self._folder, nodes=nodes,
            accounting=accounting, remembers=remembers))

    def _name_hosts(self) -> None:
        host = socket.gethostname()
        with Path("/etc/hosts").open("r+") as hosts:  # ranks of several nodes find each other by name
            known = hosts.read()
            for name in (*NODES, host):
                if f" {name} " not in known:
                    hosts.write(f"127.0.0.1 {name} # for tests of megavox\n")

    def _start(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [f"/usr/sbin/{command[0]}", *command[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._folder, env={**os.environ, **self.variables}, start_new_session=True,
                preexec_fn=die_with_parent)
        atexit.register(self._daemons[name].wait)
        atexit.register(self._daemons[name].kill)  # runs first

    def _until(self, what: str, *command: str) -> None:
        begin = time.monotonic()
        while self._run(*command).returncode:
            assert time.monotonic() - begin < READY_S, f"{what}: {self._said(what)}"
            assert self._daemons[what].poll() is None, f"{what} ended: {self._said(what)}"
            time.sleep(0.2)

    def _until_idle(self) -> None:
        begin = time.monotonic()
        while self._run("sinfo", "-h", "-N", "-p", "main", "-o", "%T").stdout.split() != ["idle"] * len(NODES):
            assert time.monotonic() - begin < READY_S, f"nodes: {[self._said(node) for node in NODES]}"
            time.sleep(0.2)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env={**os.environ, **self.variables}, capture_output=True, text=True,
                              check=False, timeout=30)

    def _said(self, what: str) -> str:
        return (self._folder / f"{what}.out").read_text(errors="replace")[-1000:]


def _free_ports(count: int) -> int:
    """The first of so many ports beside each other that nobody listens on."""
    for first in range(30000 + os.getpid() % 97 * 10, 32000, 10):
        with_all = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(with_all):
                one.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        else:
            return first
        finally:
            for one in with_all:
                one.close()
    raise AssertionError("no free ports")
