"""Builds the speech engine, pywhispercpp, from its own source distribution for this machine.

The wheel on the package index must run everywhere. It therefore lacks instructions that this
processor may have, and options that whisper.cpp does not build by default. `scripts/build_engine`
builds the candidates of `recipes.py` in a scratch folder (`workshop.py`) and compares them with the
wheel on a real transcription (`contest.py`; each engine runs `trial.py` in a separate process). It
installs the winner into `.venv` (`installation.py`), or the wheel again. Nothing in `.venv` changes
before a candidate has won. `scripts/dev/bench` also uses the workshop, to build whisper.cpp's
server from the same source.

Standard library only, because it runs on the system's Python; code that needs numpy runs under the
Python of `.venv`.
"""
