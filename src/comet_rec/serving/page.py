"""The page that the service shows at ``/``, and the headers that keep it to its own origin."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files


def page() -> tuple[bytes, dict[str, str]]:
    """Content of the page, and the headers of its HTTP answer.

    The content security policy allows the style and the script of the page by their hashes, and
    requests to the page's own origin. A browser refuses everything else.
    """
    text = files("comet_rec.serving").joinpath("page.html").read_text(encoding="utf-8")
    policy = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        f"style-src {_source(text, 'style')}",
        f"script-src {_source(text, 'script')}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(policy),
        "Cache-Control": "no-cache",  # so that an update of the library updates the page
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return text.encode(), headers


def _source(text: str, tag: str) -> str:
    """Hash of the one element `tag` of a page, in the form of a content security policy."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
