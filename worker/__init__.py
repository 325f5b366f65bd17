"""One node's work: agent, task state machine, runtime, images, volumes, logs."""
