# shellcheck shell=bash
# XLA's flags on CPU: none. Its defaults are what the tests and goldens run with, and jaxlib ends a process whose
# XLA_FLAGS name one it doesn't know (names come and go: xla_cpu_collective_call_terminate_timeout_seconds exists in
# 0.10.2 and 0.12.0, and not in 0.7.2). What the caller has set stays.

export XLA_FLAGS="${XLA_FLAGS:-}"
