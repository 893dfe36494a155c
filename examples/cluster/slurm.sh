#!/bin/bash
# A run on the nodes of a Slurm allocation.
#
#     sbatch --nodes=4 --gpus-per-node=8 examples/cluster/slurm.sh run.toml
#
# Ray is started on every node, `tailcast run` on the first. `out` in the file must be a folder that
# outlives the job, or a URL. When time runs out, the same line goes on from what is on disk.
#SBATCH --job-name=tailcast
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --output=tailcast-%j.log
set -euo pipefail

config=${1:?"usage: sbatch [options] slurm.sh RUN.toml [options of tailcast run]"}
port=${RAY_PORT:-6379}
patience=${RAY_PATIENCE:-300} # seconds that all nodes have to join

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

on() { # NODE COMMAND...: beside other steps, with all that the job has of the node; in a subshell
    exec srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" "${@:2}"
}

address=$(on "${nodes[0]}" hostname --ip-address | awk '{ print $1; exit }')
export RAY_ADDRESS=$address:$port RAY_USAGE_STATS_ENABLED=0
# Ray lets in who knows the token: the steps of this job.
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
cores=(--num-cpus="${SLURM_CPUS_ON_NODE:-$(nproc)}")
on "${nodes[0]}" ray start --block --head --node-ip-address="$address" --port="$port" "${cores[@]}" &
for node in "${nodes[@]:1}"; do
    on "$node" ray start --block --address="$RAY_ADDRESS" "${cores[@]}" &
done

joined() { # how many nodes there are so far
    python - << 'END' 2> /dev/null || echo 0
import ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
print(sum(one["Alive"] for one in ray.nodes()))
END
}

while (($(joined) < ${#nodes[@]})); do
    if ((SECONDS > patience)); then
        echo "only $(joined) of ${#nodes[@]} nodes joined in $patience s: see above why." >&2
        exit 1
    fi
    sleep 2
done

tailcast run "$config" --ray auto "${@:2}"
