#!/usr/bin/env bash
# Installs this commit and its environment on every worker on which no training runs. It can be repeated.
#
#   PROJECT=… ZONE=… TPU_NAME=… [NFS=10.0.0.2:/share] launch/tpu_vm/setup.sh
#
# Optional: COMMIT (HEAD); EXTRAS of the package (demo,tpu); NFS, a file share to mount at /mnt/share. With more than one
# worker the data set and the run directory must be on a disk that all workers see. Its file system must be able to rename
# directories and lock files. A mounted object store doesn't guarantee this.

# shellcheck source=launch/tpu_vm/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

archive=${TMPDIR:-/tmp}/omnijax-$TPU_NAME.tar.gz
if dry; then archive=omnijax.tar.gz; fi
run git archive --format tar.gz --prefix omnijax/ --output "$archive" "${COMMIT:-HEAD}"
queued scp "$archive" "$TPU_NAME:omnijax.tar.gz" --node all --worker all

# The Python of the machines is older than 3.11, so uv installs one.
lines=(
  'set -e'
  'if ! flock -n omnijax.lock true; then echo a training runs here: left as it is; exit 0; fi'
  'rm -rf omnijax/launch omnijax/omnijax omnijax/experiments' # files of an older commit
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
