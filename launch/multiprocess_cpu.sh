#!/usr/bin/env bash
# Trains an experiment in several processes on the CPU of this machine, over gloo, like a small pod.
#
#   EXPERIMENT=experiments/digits.py PROCESSES=2 launch/multiprocess_cpu.sh [--mesh.fsdp 2 …]
#
# Environment: EXPERIMENT, PROCESSES; DEVICES, fake devices per process (1); WORKDIR (runs/NAME); OMNIJAX (`omnijax`);
# GRACE_SECONDS (60): how long processes may take to end after one has died or after Ctrl-C, before they are killed.
# With --once as the first argument they aren't restarted after status 75 or death by a signal (launch/retry.sh).
# Each line of output starts with the number of its process. A second Ctrl-C kills at once.
#
# Exit status: 0 if all processes succeeded; that of a process that failed by itself; else 75 (stopped, or one was killed).

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need EXPERIMENT 'an experiment file, for example experiments/digits.py' PROCESSES 'how many processes, for example 2'
: "${DEVICES:=1}" "${GRACE_SECONDS:=60}"
need_number PROCESSES
need_number DEVICES
need_number GRACE_SECONDS
if [[ "${1:-}" == --once ]]; then
  shift
elif ! dry; then
  exec "launch/retry.sh" "launch/multiprocess_cpu.sh" --once "$@"
fi

set_flags cpu
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
if dry; then port=PORT; else port=$(free_port); fi
not_by_proxy 127.0.0.1,localhost
environment=(
  JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$DEVICES"
  "OMNIJAX_COORDINATOR=127.0.0.1:$port" "OMNIJAX_PROCESSES=$PROCESSES"
)
command=("$(omnijax_command)" train "$EXPERIMENT" --workdir "$(workdir)" "$@")
if dry; then
  for ((i = 0; i < PROCESSES; i++)); do
    printf '%s &\n' "$(quoted env "${environment[@]}" "OMNIJAX_PROCESS=$i" "${command[@]}")"
  done
  echo wait
  exit 0
fi

label() {
  local line
  while IFS= read -r line || [[ -n "$line" ]]; do
    printf '[%d] %s\n' "$1" "$line"
  done <"$pipes/$1"
}
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
set -m # each process leads its own group, so that its children can be killed with it
pids=() statuses=() labels=() deadline='' interrupted=''
to_all() {
  local i
  for i in "${!pids[@]}"; do
    if [[ -z "${statuses[$i]:-}" ]]; then
      kill -s "$1" -- "-${pids[$i]}" 2>/dev/null || true
    fi
  done
}
# shellcheck disable=SC2329  # traps call it
stop() {
  if [[ -n "$interrupted" ]]; then
    to_all KILL
  else
    interrupted=$1
    say "SIG$1: the processes save and end; those left after $GRACE_SECONDS s are killed"
    to_all "$2"
    deadline=$((SECONDS + GRACE_SECONDS))
  fi
}
trap 'stop INT TERM' INT
trap 'stop TERM TERM' TERM HUP
trap 'stop USR1 USR1' USR1

for ((i = 0; i < PROCESSES; i++)); do
  mkfifo "$pipes/$i"
  label "$i" &
  labels+=("$!")
  env "${environment[@]}" "OMNIJAX_PROCESS=$i" "${command[@]}" </dev/null >"$pipes/$i" 2>&1 &
  pids+=("$!")
  statuses+=('')
done
if [[ -n "$interrupted" ]]; then # some processes may have started after the signal was sent
  to_all TERM
fi

left=$PROCESSES
while ((left)); do
  for i in "${!pids[@]}"; do
    if [[ -n "${statuses[$i]}" ]] || kill -0 "${pids[$i]}" 2>/dev/null; then
      continue
    fi
    statuses[i]=0
    wait "${pids[$i]}" || statuses[i]=$?
    kill -s KILL -- "-${pids[$i]}" 2>/dev/null || true # children that it may have left behind
    ((left -= 1)) || true
    if ((statuses[i] && left)) && [[ -z "$deadline" ]]; then
      say "process $i ended with status ${statuses[$i]}; the others have $GRACE_SECONDS s to notice"
      deadline=$((SECONDS + GRACE_SECONDS))
    fi
  done
  if ((left)) && [[ -n "$deadline" ]] && ((SECONDS >= deadline)); then
    say "killing the $left process(es) left"
    to_all KILL
    deadline=$((SECONDS + 5))
  fi
  sleep 0.2 &
  wait $! || true # a `sleep` in the foreground would delay signals
done

wait "${labels[@]}"

result=0
for status in "${statuses[@]}"; do
  if ((status == 75 || status > 128)); then
    ((result)) || result=75
  elif ((status)) && ((result == 0 || result == 75)); then
    result=$status
  fi
done
if [[ "$interrupted" == INT ]]; then
  result=130
fi
exit "$result"
