"""Model files: find or fetch them, and check them before the engine loads them.

`app/model_files/catalog.py` is the entrance. Standard library only, but for `convert`.
"""
