"""One number for the content of many texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def digest_of(texts: Iterable[str]) -> str:
    """The sha256 of texts in their order, in hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode(errors="surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
