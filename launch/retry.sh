#!/usr/bin/env bash
# Runs a command again as long as its failure may be temporary.
#
#   launch/retry.sh COMMAND [ARGUMENT]...
#
# A failure is temporary if the command ends with status 75 (the training was stopped or lost a peer, and the same command
# continues it), or if a signal other than that of Ctrl-C kills it. Any other status is returned. Before the next run the
# script waits RETRY_FIRST_SECONDS (5). The pause doubles after each further run that ended within RETRY_QUICK_SECONDS (60),
# up to RETRY_MOST_SECONDS (300), and a longer run resets it. After RETRY_QUICK_FAILURES (8) quick runs in a row the script
# gives up with the last status. There is no jitter, so that all processes of a job return at the same time.
#
# TERM, INT, HUP, USR1 and USR2 are passed to the command, which then isn't started again.

set -euo pipefail
set -m # the command has its own process group: Ctrl-C reaches only this script, which passes it on once

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

# A signal that arrived before the child was known is passed on now.
start() {
  "$@" &
  child=$!
  if [[ -n "$stopping" ]]; then
    hand_on "$stopping"
  fi
}

# A signal ends `wait`, but not the child, so wait again until the child has ended.
status_of_child() {
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true
  done
  status=0
  wait "$child" || status=$?
}

# 129 to 192 is death by a signal. 130 is Ctrl-C, by which a user ends the command. 255 is an error of ssh.
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
