"""What `jit` compiles for training."""
