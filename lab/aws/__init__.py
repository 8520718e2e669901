"""Stand-ins for what moto lacks of AWS: states of targets, a balancer that follows them, hooks, notices."""
