"""Wyoming, the protocol of Home Assistant and Rhasspy."""
