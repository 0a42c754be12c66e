# shellcheck shell=bash
# libtpu's flags. TPU flags belong to libtpu, not to XLA_FLAGS, and a process that names one it doesn't know ends. These are
# known to libtpu 0.0.42 (tests/test_launch.py asks the installed one). The caller's own LIBTPU_INIT_ARGS come last, and win.
# `. launch/flags/tpu.sh` before `omnijax plan` as well: the plan then is of the step that runs.

flags=(
  # Gathers and reductions run in the background, cut into steps that are fused with the matrix products between their
  # start and end. On by default today; stated because the step is planned on it. docs.jax.dev/en/latest/xla_flags.html,
  # openxla.org/xla/flags_guidance ("v5e/Async").
  --xla_enable_async_all_gather=true
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  --xla_tpu_overlap_compute_collective_tc=true
  # Between slices only gradients cross; this lets their sums over the data-centre network run behind the backward pass,
  # whatever their sizes. docs.jax.dev/en/latest/xla_flags.html; MaxText's DATA_PARALLEL_OVERLAP.
  --xla_tpu_enable_data_parallel_all_reduce_opt=true
  --xla_tpu_data_parallel_opt_different_sized_ops=true
)
export LIBTPU_INIT_ARGS="${flags[*]}${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}"
unset flags
