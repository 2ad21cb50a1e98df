"""The worker thread: the scheduler and the work on one request, a window at a time."""
