"""The HTTP front door: OpenAI's API over the queue. Any number of replicas; none keeps what another would need."""
