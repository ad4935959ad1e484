"""The `penstock` command. Thin: it reads arguments and environment, calls, prints, and maps errors to exit codes."""

from __future__ import annotations

from producer.cli.main import main

__all__ = ["main"]
