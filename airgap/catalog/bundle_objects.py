"""The objects of a bundle inside a file-based catalog: JSON in base64, each in a property.

Only older catalogs have them. Knows where an object stands, and nothing of what it means.
"""

from __future__ import annotations

import base64
from typing import Any

TYPE = "olm.bundle.object"
"""The type of a property that holds one."""


def raw(value: dict[str, Any]) -> bytes:
    """Return the object in a property's value, its keys in lower case; b"" for none."""
    data = value.get("data")
    try:
        return base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except ValueError:
        return b""
