"""HTTP/1.1: OpenAI's audio API, whisper.cpp's `/inference`, the page, health and metrics."""
