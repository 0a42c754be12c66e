#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that has the JobSet controller: fills in launch/gke/jobset.yaml and applies it.
#
#   JOB_NAME=digits IMAGE=… TPU_ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=16x16 CLAIM=share \
#     EXPERIMENT=experiments/digits.py WORKDIR=/mnt/share/runs/digits launch/gke/apply.sh [--size base …]
#
# Optional: SLICES (1); CHIPS per machine (4); MAX_RESTARTS (50). kubectl must point at the cluster. launch/gke/Dockerfile
# makes the image. Arguments are overrides of `omnijax train`. To end the training: kubectl delete jobset JOB_NAME.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

need \
  JOB_NAME 'a name for the JobSet, for example digits' \
  IMAGE 'the container image, made with launch/gke/Dockerfile' \
  TPU_ACCELERATOR 'the kind of TPU as GKE names it, for example tpu-v5-lite-podslice' \
  TOPOLOGY 'the topology of a slice, for example 16x16' \
  CLAIM 'the PersistentVolumeClaim (ReadWriteMany) of the disk that all machines see; it is mounted at /mnt/share' \
  EXPERIMENT 'an experiment file, for example experiments/digits.py' \
  WORKDIR 'the run directory, for example /mnt/share/runs/digits'
: "${SLICES:=1}" "${CHIPS:=4}" "${MAX_RESTARTS:=50}"
need_number SLICES
need_number CHIPS
if [[ ! "$TOPOLOGY" =~ ^[0-9]+(x[0-9]+){1,2}$ ]]; then
  say "TOPOLOGY=$TOPOLOGY must be chips along each axis, for example 16x16 or 8x8x8"
  exit 2
fi
chips_a_slice=$((${TOPOLOGY//x/*}))
if ((chips_a_slice % CHIPS)); then
  say "CHIPS=$CHIPS a machine must divide the $chips_a_slice chips of TOPOLOGY=$TOPOLOGY"
  exit 2
fi
# shellcheck disable=SC2034  # filled in below, by name
HOSTS=$((chips_a_slice / CHIPS))
# A YAML list with YAML quotes.
ARGUMENTS=
for argument in "$@"; do
  ARGUMENTS+="${ARGUMENTS:+, }'${argument//\'/\'\'}'"
done
# shellcheck disable=SC2034  # filled in below, by name
ARGUMENTS="[$ARGUMENTS]"

filled=$(<launch/gke/jobset.yaml)
for name in JOB_NAME IMAGE TPU_ACCELERATOR TOPOLOGY CLAIM EXPERIMENT WORKDIR SLICES CHIPS MAX_RESTARTS HOSTS ARGUMENTS; do
  filled=${filled//"\${$name}"/"${!name}"}
done
if dry; then
  printf "kubectl apply -f - <<'YAML'\n%s\nYAML\n" "$filled"
else
  kubectl apply -f - <<<"$filled"
fi
