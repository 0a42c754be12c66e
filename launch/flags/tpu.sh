# shellcheck shell=bash
# libtpu's flags. TPU flags belong to libtpu, not to XLA_FLAGS, and a process with an unknown flag ends. libtpu 0.0.42 knows
# these (tests/test_launch.py checks the installed one). The caller's own LIBTPU_INIT_ARGS come last and override these. Run
# `. launch/flags/tpu.sh` before `omnijax plan` too, so that the plan is for the same step.

flags=(
  # Gathers and reductions run in the background, in steps that are fused with the matrix products between their start and
  # end. Today this is the default; it is set because the plan depends on it. docs.jax.dev/en/latest/xla_flags.html,
  # openxla.org/xla/flags_guidance ("v5e/Async").
  --xla_enable_async_all_gather=true
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  --xla_tpu_overlap_compute_collective_tc=true
  # Only gradients cross between slices. Their sums over the data-centre network, of any size, run during the backward
  # pass. docs.jax.dev/en/latest/xla_flags.html; MaxText's DATA_PARALLEL_OVERLAP.
  --xla_tpu_enable_data_parallel_all_reduce_opt=true
  --xla_tpu_data_parallel_opt_different_sized_ops=true
)
export LIBTPU_INIT_ARGS="${flags[*]}${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}"
unset flags
