"""A request's way from its header to its outcome: quota, upload, commit, dispatch. Loop thread."""
