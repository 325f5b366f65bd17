"""shoald: wires the worker, the network plane, the local API and the manager process together."""
