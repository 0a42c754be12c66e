# shellcheck shell=bash
# Shared by all scripts here, which source it first. Paths in the environment are relative to the root of the repository.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# say WORDS: prints a message on stderr, apart from the output of the commands.
say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# need NAME MEANING [NAME MEANING]...: names all variables that are unset, and then ends the script with status 2.
need() {
  local missing=0
  while (($#)); do
    if [[ -z "${!1:-}" ]]; then
      ((missing += 1))
      say "$1 is not set: $2"
    fi
    shift 2
  done
  if ((missing)); then
    say "set the name(s) above, as in \`NAME=value ${0#./} …\`; DRY_RUN=1 shows the commands without running them"
    exit 2
  fi
}

# need_number NAME: ends the script with status 2 unless the variable is a whole number above 0.
need_number() {
  if [[ ! "${!1}" =~ ^[1-9][0-9]*$ ]]; then
    say "$1=${!1} must be a whole number above 0"
    exit 2
  fi
}

# quoted WORDS: prints the words in one line, quoted for the shell.
quoted() {
  local word line=
  for word in "$@"; do
    if [[ ! "$word" =~ ^[A-Za-z0-9_./:=@%+,~-]+$ ]]; then
      word="'${word//\'/\'\\\'\'}'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

dry() {
  [[ "${DRY_RUN:-0}" == 1 ]]
}

# run COMMAND: runs it; with DRY_RUN=1 prints it, quoted for pasting.
run() {
  if dry; then
    quoted "$@"
  else
    "$@"
  fi
}

# run_last COMMAND: replaces the script by the command, so that signals reach the command itself.
run_last() {
  if dry; then
    quoted "$@"
    exit 0
  fi
  exec "$@"
}

# The `omnijax` to run: OMNIJAX if it is set, else that of `make setup` if it exists, else that on the PATH.
omnijax_command() {
  if [[ -n "${OMNIJAX:-}" ]]; then
    printf '%s\n' "$OMNIJAX"
  elif [[ -x .venv/bin/omnijax ]]; then
    printf '%s\n' .venv/bin/omnijax
  else
    printf '%s\n' omnijax
  fi
}

# The run directory: WORKDIR, or runs/ and the name of the experiment.
workdir() {
  local name=${EXPERIMENT##*/}
  printf '%s\n' "${WORKDIR:-runs/${name%.py}}"
}

# set_flags cpu|gpu|tpu: exports the compiler flags of launch/flags/; with DRY_RUN=1 also prints the command.
set_flags() {
  if [[ ! -f "launch/flags/$1.sh" ]]; then
    say "ACCELERATOR=$1 must be cpu, gpu or tpu"
    exit 2
  fi
  # shellcheck source=/dev/null
  . "launch/flags/$1.sh"
  if dry; then
    quoted . "launch/flags/$1.sh"
  fi
}

# not_by_proxy HOSTS: excludes HOSTS (separated by commas) from the proxy, if the environment has one. Otherwise gRPC would
# ask the proxy for the other processes of the job, even on one machine. JAX's warning about proxy variables is turned off.
not_by_proxy() {
  if [[ -n "${http_proxy:-}${https_proxy:-}${HTTP_PROXY:-}${HTTPS_PROXY:-}${grpc_proxy:-}${GRPC_PROXY:-}" ]]; then
    export no_proxy="$1${no_proxy:+,$no_proxy}" NO_PROXY="$1${NO_PROXY:+,$NO_PROXY}" JAX_CHECK_PROXY_ENVS=false
  fi
}
