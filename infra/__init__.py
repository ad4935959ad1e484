"""What the three programs share below them: the broker, process life, logs and metrics; and how they are deployed."""
