"""The whole agent as a process, and someone hurts it."""
