"""Reading of a body: sniff, repair, decode, detect speech, cut into windows. Worker thread."""
