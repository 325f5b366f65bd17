"""Service addresses at connect(): a small eBPF program, made here, and its maps."""
