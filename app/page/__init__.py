"""The web page that the HTTP port serves, and the module that reads its files once at start."""
