"""What must outlive the process, or must not be waited for: the journal, large bodies, stdout's
lines. Written by one thread, `app/disk/thread.py`; nobody else waits for a disk.
"""
