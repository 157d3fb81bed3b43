"""Transcript a page as a browser would, without one."""

import base64
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "source"}


class Page(HTMLParser):
    """Collects tags and attributes, and holds that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def decoded(url):
    return base64.b64decode(url.partition(";base64,")[2])
