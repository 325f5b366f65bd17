"""Keys and what is sealed with them: encryption at rest, unlock keys, sealed streams. No I/O in here."""
