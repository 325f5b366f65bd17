"""The front door: shoald, the shoal CLI and the playground."""
