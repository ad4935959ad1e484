"""The engines a consumer can run, behind one port."""
