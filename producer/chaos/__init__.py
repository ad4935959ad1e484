"""Kills what it started, at random moments that a seed repeats, and then counts: `penstock chaos NAME`."""
