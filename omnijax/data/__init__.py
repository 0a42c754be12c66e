"""From raw signals on disk to batches on the device."""
