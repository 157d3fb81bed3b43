"""The command line `moss-audio`: one file a command, and what commands share.

Owns how a person or a script talks to the package: options, files that go in and out, progress,
messages and exit codes. An option is one line in a command's signature: those of several commands
are defined in `options.py`, those of one command above it. Knows nothing of how audio becomes
codes. At import no module here loads more than Typer, so that `moss-audio --help` is instant;
commands import what they need when run.
"""
