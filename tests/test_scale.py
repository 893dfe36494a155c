"""Many draws take no more memory than few, and the scripts for clusters do what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tailcast.pipeline.shelf import Shelf, Shelved
from tailcast.stats import Round, pooled_shares, shares

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import scale  # noqa: E402

CLUSTER = ROOT / "examples" / "cluster"


def test_estimates_of_many_queries_come_from_their_files_in_little_memory(tmp_path):
    """The short form of benchmarks/scale.py; a query with another's verdicts is found."""
    _, truth = scale.drawn(tmp_path, 2, 400)
    out = tmp_path / "run"
    scale.spread(tmp_path / "template", out, 60, 400)
    found = scale.apart(out, 60, 400)
    assert scale.same(out, truth) == 0 and found["peak"] < 2**30
    for name in ("estimates.jsonl", "finished.json"):
        (out / name).unlink()
    shutil.rmtree(out / "verdicts/round-0/q3")
    shutil.copytree(out / "verdicts/round-0/q2", out / "verdicts/round-0/q3")
    scale.aggregate(out, 60, 400)
    assert scale.same(out, truth) == 1


def test_a_cluster_is_as_busy_as_its_driver_lets_it_be():
    alone = scale.Cluster(4)
    alone.work([(0.0, 1.0)] * 40)
    assert alone.now == pytest.approx(10) and alone.busy == pytest.approx(40)
    slow = scale.Cluster(4)
    slow.work([(1.0, 1.0)] * 40)  # a second of the driver for each: no faster than that
    assert slow.now == pytest.approx(41)


def test_a_shelf_gives_back_what_was_put_on_it():
    shelf = Shelf()
    first, second = Shelved(shelf), Shelved(shelf)
    for k in range(5):
        record = np.arange(k)
        first.append(record)
        second.append(record)
    assert [one.tolist() for one in first] == [one.tolist() for one in second]
    assert [one.tolist() for one in first] == [list(range(k)) for k in range(5)]
    assert first[-1].tolist() == [0, 1, 2, 3] and [len(one) for one in first[1:3]] == [1, 2]
    assert shelf._file.seek(0, 2) < 2 * sum(len(one) * 8 + 200 for one in first)


def test_pooled_shares_of_a_part_of_very_many_hits_are_those_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    counts, n = np.array([500, 500, 500]), 4000
    queries = []
    for lean in (0.5, 1.5, 2.5):
        ratios = np.column_stack([np.zeros(n), rng.normal(lean, 1, n), rng.normal(1, 2, n)])
        queries.append([Round(counts, rng.integers(0, 3, n), ratios, np.zeros(n))])
    whole = pooled_shares(queries, np.ones(3))
    monkeypatch.setattr(shares, "_POOLED", 900)
    np.testing.assert_allclose(pooled_shares(queries, np.ones(3)), whole, atol=0.03)
    monkeypatch.setattr(shares, "_fewer", lambda ratios, weights, most: (ratios[:9], weights[:9]))
    assert abs(pooled_shares(queries, np.ones(3)) - whole).max() > 0.05  # negative control


FAKES = {
    "scontrol": 'printf "%s\\n" one two',
    "srun": 'echo "srun $*" >> "$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 192.0.2.7 192.0.2.8",
    "ray": 'echo "ray $* $RAY_AUTH_TOKEN" >> "$LOG"; exec sleep 60',
    "python": "cat > /dev/null; echo $NODES",
    "tailcast": 'echo "tailcast $* at $RAY_ADDRESS with $RAY_AUTH_TOKEN" >> "$LOG"; exit 5',
}


def slurm(folder: Path, nodes: int, patience: int = 40) -> tuple[int, str, str]:
    """The script with commands that only say how they were called."""
    for name, does in FAKES.items():
        (folder / name).write_text(f"#!/bin/bash\n{does}\n")
        (folder / name).chmod(0o755)
    env = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(folder / "log"), "NODES": str(nodes),
        "SLURM_JOB_NODELIST": "one,two", "SLURM_CPUS_ON_NODE": "3", "RAY_PATIENCE": str(patience),
    }  # fmt: skip
    words = ["bash", CLUSTER / "slurm.sh", "run.toml", "--samples", "9"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr, (folder / "log").read_text()


def test_the_slurm_script_starts_ray_on_every_node_and_the_run_on_it(tmp_path):
    code, _, log = slurm(tmp_path, 2)
    assert code == 5, "the run's own exit status"
    run = next(line for line in log.splitlines() if line.startswith("tailcast"))
    token = run.rsplit(" ", 1)[-1]
    assert run.startswith("tailcast run run.toml --ray auto --samples 9 at 192.0.2.7:6379")
    assert len(token) == 64
    rays = sorted(line for line in log.splitlines() if line.startswith("ray "))
    assert rays == [
        f"ray start --block --address=192.0.2.7:6379 --num-cpus=3 {token}",
        "ray start --block --head --node-ip-address=192.0.2.7 --port=6379 --num-cpus=3 " + token,
    ]
    assert "--nodelist=two ray start --block --address" in log


def test_the_slurm_script_says_that_nodes_are_missing(tmp_path):
    code, err, log = slurm(tmp_path, 1, patience=1)
    assert code == 1 and "only 1 of 2 nodes joined in 1 s" in err and "tailcast" not in log


def test_the_scripts_for_clusters_can_be_read():
    for script in CLUSTER.glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)
    settings, job = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    spec = job["spec"]["rayClusterSpec"]
    assert settings["data"]["run.toml"] and job["kind"] == "RayJob"
    pods = [one["template"]["spec"] for one in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    assert [pod["volumes"][0]["configMap"]["name"] for pod in pods] == ["tailcast"] * 2
