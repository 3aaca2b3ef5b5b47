"""The page at `/`."""


def page() -> tuple[bytes, dict[str, str]]:
    """Content and headers of the page."""
    return b"", {}
