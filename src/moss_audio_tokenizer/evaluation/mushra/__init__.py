"""Listening tests after ITU-R BS.1534 (MUSHRA): the page that people rate on, and its results.

The page is one file that needs no server; its script is `mushra.js`. A result is what the page
gives to download, a JSON file of one listener.
"""

from .mushra_page import build_listening_test
from .ratings import Session, SystemRatings, aggregate, read_session, screen

__all__ = [
    "Session",
    "SystemRatings",
    "aggregate",
    "build_listening_test",
    "read_session",
    "screen",
]
