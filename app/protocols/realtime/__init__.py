"""OpenAI's Realtime API, transcription sessions only, over WebSocket."""
