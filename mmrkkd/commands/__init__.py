"""What ``mmrkkd COMMAND`` does, a module a command.

:mod:`program` and this file need the standard library alone: the doctor
comes through them where nothing is installed.
"""
