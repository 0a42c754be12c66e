#!/usr/bin/env bash
# Gives the machines back, and takes the request out of the queue. What lies on their own disks is lost.
#
#   PROJECT=… ZONE=… TPU_NAME=… launch/tpu_vm/delete.sh

# shellcheck source=launch/tpu_vm/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

queued delete "$TPU_NAME" --force --quiet
