"""Files and batches, OpenAI's way: `/v1/files` and `/v1/batches`."""
