"""Reports about the node itself: Prometheus metrics, health and status. Loop thread."""
