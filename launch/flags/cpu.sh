# shellcheck shell=bash
# XLA's flags on CPU: none. Tests and goldens use XLA's defaults, and jaxlib ends a process whose XLA_FLAGS have an unknown
# flag (flags change: xla_cpu_collective_call_terminate_timeout_seconds exists in 0.10.2 and 0.12.0, but not in 0.7.2).
# The caller's own XLA_FLAGS are kept.

export XLA_FLAGS="${XLA_FLAGS:-}"
