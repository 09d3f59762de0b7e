"""A training of two ranks on two nodes of a real Slurm, which loses its place midway."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from megavox.core.files import read_json
from megavox.jobs.job import JobFolder, Request
from megavox.jobs.site import wait
from megavox.jobs.slurm import Slurm, SlurmSection
from megavox.pipeline.project import Project
from slurm_here import the_cluster
from small_studies import changed, environment, packed_organs, project_of

pytestmark = pytest.mark.xdist_group("slurm trainings")
STEPS, LONG_S = 120, 300


def training(project: Project, name: str) -> list[str]:
    study = project.workspace.root.parent / "slurm.yaml"
    return ["-m", "megavox", "train", str(study), "--workspace", str(project.workspace.root), "--run-name", name]


def weights(project: Project, name: str) -> bytes:
    run = Project.at(project.study, project.workspace.root, name).run
    return (run.step(STEPS) / "network.safetensors").read_bytes()


def test_it_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in the_cluster().variables.items():
        monkeypatch.setenv(name, value)
    data, folder = packed_organs(tmp_path)
    site = {"kind": "slurm", "jobs": {"partition": "low", "ranks": 2, "nodes": 2, "cpus": 1}}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    data = changed({**data, "sites": {"cluster": "site.yaml"}}, training={"steps": STEPS, "validations": 1})
    project = project_of(data, folder, "slurm")
    caller = subprocess.Popen([sys.executable, *training(project, "there"), "--site", "cluster"], text=True,
                              env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    metrics, begin = Project.at(project.study, project.workspace.root, "there").run.metrics, time.monotonic()
    while not (metrics.exists() and '"loss"' in metrics.read_text()):
        assert caller.poll() is None and time.monotonic() - begin < LONG_S
        time.sleep(0.2)
    job = JobFolder(project.workspace.jobs / "train-there.1")
    above = [JobFolder.create(tmp_path / "above" / node, Request(("sleep", "2"), str(tmp_path), cpus=4,
                                                                 partition="main")) for node in "01"]
    for other in above:
        Slurm(SlurmSection()).submit(other)
    the_cluster().release(str(read_json(job.native)[0]["id"]))
    told, _ = caller.communicate(timeout=LONG_S)
    assert caller.returncode == 0, told
    assert read_json(job.verdict())["attempt"] == 2
    assert len(list(wait(Slurm(SlurmSection()), above))) == 2
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    here = subprocess.run([*ranks, *training(project, "here")], env={**environment(), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, check=False, timeout=LONG_S)
    assert here.returncode == 0, here.stderr
    assert weights(project, "there") == weights(project, "here")
