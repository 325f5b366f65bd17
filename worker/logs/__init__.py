"""Logs of containers: reading, following and rotating what conmon writes."""
