"""From a request to its answer: paced, loaded, faulted, and beside the design in common use."""

from controller.latency.endpoints import free_tcp_endpoint, resting

__all__ = ["free_tcp_endpoint", "resting"]
