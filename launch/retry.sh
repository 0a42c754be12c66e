#!/usr/bin/env bash
# Runs a command again while that makes sense.
#
#   launch/retry.sh COMMAND [ARGUMENT]...
#
# It does when the command ends with status 75 (the training was stopped, or lost a peer: the same command goes on) or is
# killed by a signal other than Ctrl-C's. Any other status is passed on. Between two runs it waits: RETRY_FIRST_SECONDS
# (5), twice as long after each further run that ended within RETRY_QUICK_SECONDS (60), at most RETRY_MOST_SECONDS (300);
# a run that lasted longer starts this anew. After RETRY_QUICK_FAILURES (8) quick ones in a row it gives up, with the
# last status. There is no jitter: all processes of a job wait alike, and come back together.
#
# TERM, INT, HUP, USR1 and USR2 are handed on to the command, which then is not started again.

set -euo pipefail
set -m # the command has a process group of its own: Ctrl-C comes here only, and is handed on once

again_status=75
first=${RETRY_FIRST_SECONDS:-5} most=${RETRY_MOST_SECONDS:-300}
quick_seconds=${RETRY_QUICK_SECONDS:-60} quick_failures=${RETRY_QUICK_FAILURES:-8}
for name in first most quick_seconds quick_failures; do
  if [[ ! "${!name}" =~ ^[0-9]+$ ]]; then
    printf 'retry.sh: RETRY_* must be whole numbers, not %q\n' "${!name}" >&2
    exit 2
  fi
done
if (($# == 0)); then
  printf 'usage: launch/retry.sh COMMAND [ARGUMENT]...\n' >&2
  exit 2
fi

child='' stopping=''
hand_on() {
  stopping=$1
  if [[ -n "$child" ]]; then
    kill -s "$1" "$child" 2>/dev/null || true
  fi
}
for signal in TERM INT HUP USR1 USR2; do
  # shellcheck disable=SC2064  # the name of the signal is meant now
  trap "hand_on $signal" "$signal"
done

# A signal that came in before the child had a name was handed on to nobody: it gets it now.
start() {
  "$@" &
  child=$!
  if [[ -n "$stopping" ]]; then
    hand_on "$stopping"
  fi
}

# A signal that comes in while it waits ends `wait`, not the child: wait until the child itself is gone.
status_of_child() {
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true
  done
  status=0
  wait "$child" || status=$?
}

# 129 to 192 is death by a signal, but 130 is Ctrl-C: a person wants it to end. 255 is ssh's own.
worth_another() {
  ((status == again_status || (status > 128 && status <= 192 && status != 130)))
}

quick=0
while :; do
  started=$SECONDS
  start "$@"
  status_of_child
  child=''
  if [[ -n "$stopping" ]] || ! worth_another; then
    exit "$status"
  fi
  if ((SECONDS - started < quick_seconds)); then
    ((quick += 1))
  else
    quick=0
  fi
  if ((quick >= quick_failures && quick_failures > 0)); then
    printf 'retry.sh: status %d, and %d runs in a row ended within %d s: giving up\n' \
      "$status" "$quick" "$quick_seconds" >&2
    exit "$status"
  fi
  seconds=$first
  for ((i = 1; i < quick && seconds < most; i++)); do
    ((seconds *= 2)) || true
  done
  if ((seconds > most)); then
    seconds=$most
  fi
  printf 'retry.sh: status %d; starting again in %d s\n' "$status" "$seconds" >&2
  start sleep "$seconds"
  status_of_child
  child=''
  if [[ -n "$stopping" ]]; then
    exit "$again_status"
  fi
done
