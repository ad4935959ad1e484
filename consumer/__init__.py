"""Pulls jobs that fit the free KV cache, runs them on an engine, streams tokens, stores one result each."""
