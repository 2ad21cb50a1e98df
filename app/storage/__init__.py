"""What must outlive the process, or must not be waited for: the journal, large bodies, stdout's
lines. Written by one thread, `app/storage/disk.py`; nobody else waits for a disk.
"""
