"""The name server that every sandbox on a user-defined network has at 127.0.0.11."""
