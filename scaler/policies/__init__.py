"""Policies: how many consumers a pool wants, and why. Pure: no clock, no I/O; every fact comes in the observation."""
