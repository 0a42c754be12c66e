#!/usr/bin/env bash
# Requests TPU machines as a queued resource, and waits until they are ready.
#
#   PROJECT=my-project ZONE=us-west4-a TPU_NAME=omnijax ACCELERATOR_TYPE=v5litepod-256 launch/tpu_vm/create.sh [--spot …]
#
# Optional: SLICES (1); RUNTIME_VERSION (by the kind of TPU); POLL_SECONDS (30). Arguments are passed to gcloud: --spot,
# --reserved, --service-account, --network, --valid-until-duration and so on. Workers must reach each other, which the rules
# of the default network allow. In a network of your own, open the port of JAX's coordinator too (8482; 8476 before jax 0.8.1).

# shellcheck source=launch/tpu_vm/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need ACCELERATOR_TYPE 'kind and cores of a slice, for example v5litepod-256, v6e-256 or v5p-1024'
: "${SLICES:=1}"
need_number SLICES

# cloud.google.com/tpu/docs/runtimes
case "$ACCELERATOR_TYPE" in
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac
nodes=(--node-id "$TPU_NAME")
if ((SLICES > 1)); then
  nodes=(--node-count "$SLICES" --node-prefix "$TPU_NAME")
fi
queued create "$TPU_NAME" --accelerator-type "$ACCELERATOR_TYPE" --runtime-version "${RUNTIME_VERSION:-$runtime}" \
  "${nodes[@]}" "$@"
wait_until_active
