"""Audits staged runs, indexes their vectors, answers from the index, and says which parents a period waits for."""
