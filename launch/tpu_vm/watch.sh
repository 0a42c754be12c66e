#!/usr/bin/env bash
# Keeps a training running until it is done: creates the machines, sets them up, starts the training, and repeats this
# after a preemption. Run it on a machine that stays.
#
#   PROJECT=… ZONE=… TPU_NAME=… ACCELERATOR_TYPE=… EXPERIMENT=… WORKDIR=… [NFS=…] [SPOT=1] launch/tpu_vm/watch.sh [--size base …]
#
# Arguments are overrides of `omnijax train`; the environment is that of create.sh, setup.sh and run.sh. SPOT=1 requests
# spot machines. The script checks every POLL_SECONDS (30), and waits between two creations like launch/retry.sh (RETRY_*).
# The exit status is that of the training. The machines aren't deleted: use launch/tpu_vm/delete.sh.

# shellcheck source=launch/tpu_vm/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need \
  ACCELERATOR_TYPE 'kind and cores of a slice, for example v5litepod-256' \
  EXPERIMENT 'an experiment file, for example experiments/digits.py' \
  WORKDIR 'the run directory, on a disk that outlives the machines'

options=()
if [[ "${SPOT:-0}" == 1 ]]; then
  options=(--spot)
fi

# bring_up OVERRIDES...: brings up machines with a running training; returns 75 if they aren't available or are lost. Machines
# are deleted only in a state from which they can't return.
bring_up() {
  local now=NONE
  if ! dry; then
    now=$(state)
  fi
  case "$now" in
    ACTIVE) ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING) wait_until_active || return 75 ;;
    NONE) launch/tpu_vm/create.sh ${options[@]+"${options[@]}"} || return 75 ;;
    FAILED | SUSPENDING | SUSPENDED)
      say "$TPU_NAME is $now: deleting it, and asking anew"
      launch/tpu_vm/delete.sh || return 75
      launch/tpu_vm/create.sh ${options[@]+"${options[@]}"} || return 75
      ;;
    *) return 75 ;;
  esac
  launch/tpu_vm/setup.sh || return 75
  launch/tpu_vm/run.sh "$@" || return 75
}

# status_there: prints the exit status of the training on the first worker; nothing while it runs or can't be reached.
status_there() {
  queued ssh "$TPU_NAME" --node 0 --worker 0 --command 'cat omnijax.status 2>/dev/null || true'
}

if [[ "${1:-}" != --once ]] && ! dry; then
  exec launch/retry.sh launch/tpu_vm/watch.sh --once "$@"
fi
if [[ "${1:-}" == --once ]]; then shift; fi

bring_up "$@"
if dry; then
  echo '# until this is a number, or the state is no longer ACTIVE, in which case all of it again:'
  status_there
  exit 0
fi
now=ACTIVE
while [[ "$now" == ACTIVE || "$now" == UNKNOWN ]]; do
  status=$(status_there || true)
  if [[ "$status" =~ ^[0-9]+$ ]]; then
    say "the training ended with status $status"
    exit "$status"
  fi
  sleep "${POLL_SECONDS:-30}"
  now=$(state)
done
say "$TPU_NAME is $now: its machines are gone"
exit 75
