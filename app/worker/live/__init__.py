"""Live audio in the worker: requests that are heard, and decoded, while their audio arrives."""
