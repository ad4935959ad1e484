"""How consumers are started and stopped: as processes, pods, containers, or only on paper."""
