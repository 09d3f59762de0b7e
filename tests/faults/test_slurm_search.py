"""A search whose trials are jobs of a real Slurm, from which it is cut off midway."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from megavox.core.files import read_json
from megavox.jobs.job import JobFolder
from megavox.pipeline.search_report import content_of
from megavox.pipeline.tune import search_of
from slurm_here import the_cluster
from small_studies import changed, environment, packed_organs, project_of

pytestmark = pytest.mark.xdist_group("slurm trainings")
LONG_S = 300


def test_trials_of_two_ranks_go_on_without_their_search_and_are_found_again(tmp_path: Path,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in the_cluster().variables.items():
        monkeypatch.setenv(name, value)
    data, folder = packed_organs(tmp_path)
    (folder / "cluster.yaml").write_text(yaml.safe_dump({"kind": "slurm", "jobs": {"cpus": 1}, "train": {"ranks": 2}}))
    rates = {"training.optimiser.rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    search = {"workers": 2, "jobs": 4, "space": rates, "stop": {"rule": "median"}}
    project = project_of(changed({**data, "sites": {"cluster": "cluster.yaml"}, "search": search},
                                 training={"steps": 6, "validations": 2}), folder, "searched")
    words = [sys.executable, "-m", "megavox", "tune", str(folder / "searched.yaml"), "--site", "cluster",
             "--workspace", str(project.workspace.root), "--run-name", "searched"]
    killed = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begin = time.monotonic()
    while len(list(project.workspace.jobs.glob("searched-*/begun.json"))) < 2:
        assert killed.poll() is None and time.monotonic() - begin < LONG_S
        time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 trials have ended (4 done)" in done.stdout
    folders = sorted(project.workspace.jobs.glob("searched-*"))
    assert [path.name for path in folders] == [f"searched-{number:03d}.1" for number in range(4)]
    ids = {read_json(JobFolder(path).native)[0]["id"] for path in folders}
    assert len(ids) == 4 and all(read_json(JobFolder(path).begun())["attempt"] == 1 for path in folders)
    content = content_of(search_of(project, "cluster"))
    assert all(row.ranks == 2 and row.seconds > 0 and row.value is not None for row in content.trials)
