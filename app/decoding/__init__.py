"""How one window of speech becomes text: which attempts are made, with how much of the encoder, and
what of a result is believed. `app/decoding/engine.py` puts it to work on whisper.cpp. Worker thread.
"""
