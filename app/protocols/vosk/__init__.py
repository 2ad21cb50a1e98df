"""The protocol of vosk-server, over WebSocket."""
