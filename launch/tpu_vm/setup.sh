#!/usr/bin/env bash
# Puts this commit and its environment on every worker, but those on which a training runs. May be run again.
#
#   PROJECT=… ZONE=… TPU_NAME=… [NFS=10.0.0.2:/share] launch/tpu_vm/setup.sh
#
# Environment besides: COMMIT (HEAD); EXTRAS of the package (demo,tpu); NFS, a file share to mount at /mnt/share. With
# more than one worker the data set and the run directory must lie on a disk that all of them see. It has to be a file
# system: renaming a directory and locking a file must work, which an object store mounted as one doesn't promise.

# shellcheck source=launch/tpu_vm/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

archive=${TMPDIR:-/tmp}/omnijax-$TPU_NAME.tar.gz
if dry; then archive=omnijax.tar.gz; fi
run git archive --format tar.gz --prefix omnijax/ --output "$archive" "${COMMIT:-HEAD}"
queued scp "$archive" "$TPU_NAME:omnijax.tar.gz" --node all --worker all

# The machines' own Python is older than 3.11: uv fetches one.
lines=(
  'set -e'
  'if ! flock -n omnijax.lock true; then echo a training runs here: left as it is; exit 0; fi'
  'rm -rf omnijax/launch omnijax/omnijax omnijax/experiments' # what an older commit left
  'tar xzf omnijax.tar.gz'
  'cd omnijax'
  'python3 -m pip install --quiet --user uv'
  '[ -x .venv/bin/python ] || python3 -m uv venv --quiet --python 3.12 .venv'
  "python3 -m uv pip install --quiet --python .venv/bin/python -c launch/constraints/latest.txt -e '.[${EXTRAS:-demo,tpu}]'"
)
if [[ -n "${NFS:-}" ]]; then
  lines+=(
    'sudo apt-get -qq install -y nfs-common >/dev/null'
    'sudo mkdir -p /mnt/share'
    "mountpoint -q /mnt/share || sudo mount -t nfs $(quoted "$NFS") /mnt/share"
    'sudo chmod 1777 /mnt/share'
  )
fi
printf -v command '%s; ' "${lines[@]}"
on_all "${command%; }"
