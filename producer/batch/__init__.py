"""Files of requests: the format of OpenAI batches and of `vllm run-batch`."""
