"""Attempts to break out of a machine's sandbox, as guest root and as code in UML's process, judged on the host."""
