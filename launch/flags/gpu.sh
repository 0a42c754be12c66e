# shellcheck shell=bash
# XLA's flags on NVIDIA GPUs. The caller's own XLA_FLAGS come last and override these. jaxlib 0.7.2, 0.10.2 and 0.12.0 know
# all flags (tests/test_launch.py checks the installed one). DETERMINISTIC=1 gives the same bits in every run.

flags=(
  # Starts collectives early, so that they run at the same time as matrix products.
  # docs.jax.dev/en/latest/gpu_performance_tips.html; NVIDIA's JAX images set it and nothing else.
  --xla_gpu_enable_latency_hiding_scheduler=true
  # Combines gathers, scatters and reductions of one layer into one call of up to 256 MiB. The bf16 matrices of a layer of
  # `base` (100 MB) fit. Same page: "high enough to combine at least a Transformer layer's".
  --xla_gpu_all_gather_combine_threshold_bytes=268435456
  --xla_gpu_reduce_scatter_combine_threshold_bytes=268435456
  --xla_gpu_all_reduce_combine_threshold_bytes=268435456
)
if [[ "${DETERMINISTIC:-0}" == 1 ]]; then
  # Excludes kernels whose sums depend on timing, and autotuning, which chooses kernels by measurement. Slower.
  # openxla.org/xla/determinism (xla/debug_options_flags.cc: "implies exclude_nondeterministic_ops").
  flags+=(--xla_gpu_deterministic_ops=true)
fi
export XLA_FLAGS="${flags[*]}${XLA_FLAGS:+ $XLA_FLAGS}"
unset flags

# JAX takes 75 % of a GPU's memory by default; NVIDIA recommends 0.8 to 0.9 for training (JAX-Toolbox, GPU performance).
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
