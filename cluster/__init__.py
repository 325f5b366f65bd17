"""The shared language of Shoal: objects, specs, messages and identities. Pure data and pure functions."""
