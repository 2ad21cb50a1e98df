"""What `app/__main__.py` settles before the first connection: how many cores and descriptors, what
becomes of freed memory, where the log goes, which ports there are beside the native one.
"""
