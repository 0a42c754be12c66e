#!/usr/bin/env bash
# Trains an experiment in one process on the devices of this machine, and continues after an interruption.
#
#   EXPERIMENT=experiments/digits.py launch/local.sh [--model.depth 6 …]
#
# Environment: EXPERIMENT; WORKDIR (runs/NAME); ACCELERATOR, the kind of flags (cpu, gpu or tpu; detected by default);
# OMNIJAX, the command (`omnijax`); RETRY=0 if something else restarts the training. Arguments are overrides of
# `omnijax train`. The other scripts start this script on each of their machines.

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need EXPERIMENT 'an experiment file, for example experiments/digits.py'

found_accelerator() {
  if compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
    echo tpu
  elif [[ -e /dev/nvidiactl ]]; then
    echo gpu
  else
    echo cpu
  fi
}

set_flags "${ACCELERATOR:-$(found_accelerator)}"
command=("$(omnijax_command)" train "$EXPERIMENT" --workdir "$(workdir)" "$@")
if [[ "${RETRY:-1}" == 1 ]]; then
  command=("launch/retry.sh" "${command[@]}")
fi
run_last "${command[@]}"
