"""Self-contained HTML pages, and small SVG pictures in them. Standard library only."""
