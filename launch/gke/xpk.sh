#!/usr/bin/env bash
# Does the same as launch/gke/apply.sh with XPK, on a cluster that XPK made (github.com/AI-Hypercomputer/xpk).
#
#   PROJECT=… ZONE=… CLUSTER=… JOB_NAME=digits TPU_TYPE=v5litepod-256 IMAGE=… \
#     EXPERIMENT=experiments/digits.py WORKDIR=/mnt/share/runs/digits launch/gke/xpk.sh [--size base …]
#
# Optional: SLICES (1); MAX_RESTARTS (50). `xpk storage attach` attaches storage to the cluster. Arguments are overrides of
# `omnijax train`.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need \
  PROJECT 'the Google Cloud project' \
  ZONE 'where the cluster is, for example us-west4-a' \
  CLUSTER 'the name of the cluster' \
  JOB_NAME 'a name for the workload, for example digits' \
  TPU_TYPE 'kind and cores of a slice, for example v5litepod-256' \
  IMAGE 'the container image, made with launch/gke/Dockerfile' \
  EXPERIMENT 'an experiment file, for example experiments/digits.py' \
  WORKDIR 'the run directory, on storage that all machines see'
: "${SLICES:=1}" "${MAX_RESTARTS:=50}"
need_number SLICES

train=$(quoted env ACCELERATOR=tpu RETRY=0 "EXPERIMENT=$EXPERIMENT" "WORKDIR=$WORKDIR" launch/local.sh "$@")
run xpk workload create --project "$PROJECT" --zone "$ZONE" --cluster "$CLUSTER" --workload "$JOB_NAME" \
  --tpu-type "$TPU_TYPE" --num-slices "$SLICES" --docker-image "$IMAGE" --max-restarts "$MAX_RESTARTS" \
  --restart-on-exit-codes 75 --command "cd /omnijax && $train"
