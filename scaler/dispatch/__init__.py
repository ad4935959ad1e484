"""The dispatcher: which of a pool's waiting jobs goes next, and when the others will. Start with `backlog.py`."""
