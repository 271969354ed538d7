"""Runs the one command as a module."""

from tributary.cli import main

raise SystemExit(main())
