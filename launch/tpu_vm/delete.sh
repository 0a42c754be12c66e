#!/usr/bin/env bash
# Deletes the machines with the files on their own disks, and removes the request from the queue.
#
#   PROJECT=… ZONE=… TPU_NAME=… launch/tpu_vm/delete.sh

# shellcheck source=launch/tpu_vm/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

queued delete "$TPU_NAME" --force --quiet
