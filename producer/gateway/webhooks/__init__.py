"""Tells tenants' own servers what became of their batches and responses, as Standard Webhooks has it."""
