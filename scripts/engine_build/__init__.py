"""Builds the speech engine, pywhispercpp, from its own source distribution for this machine.

The wheel on the package index must run everywhere, so it leaves out what this processor may have
and, more to the point, what whisper.cpp does not build unless told to. `scripts/build_engine`
builds the candidates in `recipes.py` in a scratch folder (`workshop.py`), races them against the
wheel on a real transcription (`contest.py`, each engine in a process of its own running
`trial.py`), and puts the winner into `.venv` (`installation.py`), or the wheel back. Nothing in
`.venv` changes before a candidate has won. `scripts/dev/bench` uses the workshop as well, to build
whisper.cpp's server from the same source.

Standard library only: it runs on the system's Python; what needs numpy runs under `.venv`'s.
"""
