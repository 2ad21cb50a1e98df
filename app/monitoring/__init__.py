"""What the HTTP port answers besides transcripts: page, health, metrics, status. Loop thread."""
