"""What a socket needs and no speech: listening, TLS, who may come in, deadlines, what is still to
be sent. `app/network/connection.py` puts it together for one peer. Loop thread.
"""
