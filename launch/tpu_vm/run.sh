#!/usr/bin/env bash
# Starts the training on every worker in the background. It outlives the connection, and continues after a lost peer.
#
#   PROJECT=… ZONE=… TPU_NAME=… EXPERIMENT=experiments/digits.py WORKDIR=/mnt/share/runs/digits launch/tpu_vm/run.sh [--size base …]
#
# Arguments are overrides of `omnijax train`. A second call during the training changes nothing. The output is in
# ~/omnijax.log of each worker, the exit status in ~/omnijax.status. launch/tpu_vm/watch.sh reads both.

# shellcheck source=launch/tpu_vm/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need \
  EXPERIMENT 'an experiment file, for example experiments/digits.py' \
  WORKDIR 'the run directory, on a disk that all workers see or in a bucket, for example gs://my-bucket/runs/digits'

train=$(quoted env ACCELERATOR=tpu "EXPERIMENT=$EXPERIMENT" "WORKDIR=$WORKDIR" launch/local.sh "$@")
# The training keeps the lock. The status of the previous run is removed first, so that nobody reads it.
start="cd omnijax; $train; echo \$? >../omnijax.status"
on_all "if flock -n omnijax.lock rm -f omnijax.status; then setsid nohup flock -n omnijax.lock bash -c $(quoted "$start") \
>>omnijax.log 2>&1 </dev/null & fi"
