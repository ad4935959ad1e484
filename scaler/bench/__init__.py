"""Benches of pure decisions, in virtual time: `python -m scaler.bench <name> [--json] [--quick]`."""
