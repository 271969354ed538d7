"""Speed and memory, measured against named rivals in the same run; each prints one JSON object of its figures as its last line."""
