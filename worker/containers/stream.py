"""The two streams of output, in the Engine API's numbers."""

STDOUT, STDERR = 1, 2
