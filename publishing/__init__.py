"""Audits staged runs, indexes their vectors, answers from the index, and lists the parents that a period waits for."""
