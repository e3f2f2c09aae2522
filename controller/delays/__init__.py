"""What latency costs: the return of a policy over the delay of its answers."""
