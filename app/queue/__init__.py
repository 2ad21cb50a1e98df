"""The queue on a NATS JetStream server: its names, jobs, results, and the thread of the broker."""
