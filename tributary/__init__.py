"""The one command, and the one-machine stack: start, stop, status, demo."""
