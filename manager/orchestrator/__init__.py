"""Orchestrators: they keep each service's tasks as its spec asks.

Leader only; decisions are pure functions of a view and the time.
"""
