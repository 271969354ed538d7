"""The language all parts share: tables, columns, features, periods and parents, releases, where things lie.

Standard library only; imports no other folder of the project.
"""
