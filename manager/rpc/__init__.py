"""Port 2377: what nodes and managers ask of a manager over mutual TLS, and how managers ask each other."""
