"""Decides how many consumers there should be, and starts and stops them. Not built yet."""
