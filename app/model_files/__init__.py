"""A model's file: where it comes from, that it is whole, and that its structure is one the engine
survives. `app/model_files/catalog.py` names the models. Needs no package but what Python brings.
"""
