#!/bin/bash
# A run as a job of a Ray cluster that is there already.
#
#     export RAY_API_SERVER_ADDRESS=http://HEAD:8265
#     examples/cluster/ray_submit.sh run.toml
#
# The file's folder is sent to the cluster, so queries may lie in it. `out` in the file must be a
# folder or a URL that outlives the job, and that the head node can write; `model` a hub id, or a
# path that every node has. Where the nodes have no tailcast, TAILCAST_PIP names what to install:
#
#     TAILCAST_PIP='tailcast[ray,s3]' examples/cluster/ray_submit.sh run.toml
#
# `ray job submit` is in pip install 'ray[default]'.
set -euo pipefail

config=${1:?"usage: ray_submit.sh RUN.toml [options of tailcast run]"}
folder=$(cd "$(dirname "$config")" && pwd)

needs=()
if [[ -n ${TAILCAST_PIP:-} ]]; then
    needs=(--runtime-env-json "{\"pip\": [\"$TAILCAST_PIP\"]}")
fi

ray job submit --working-dir "$folder" "${needs[@]}" -- \
    tailcast run "$(basename "$config")" --ray auto "${@:2}"
