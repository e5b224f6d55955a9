"""The media types of manifests, and which of them the program carries.

From the OCI image specification (media-types.md) and Docker's image manifest version 2,
schema 2.
"""

from __future__ import annotations

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
ACCEPTED = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
"""What is asked for, always all of them: a registry asked for less converts or hides."""

SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
"""Docker's schema 1: its digest does not cover its bytes, so it cannot be carried unchanged."""


def is_foreign_layer(media_type: str) -> bool:
    """Say whether a layer is one that registries do not hold (Windows base layers)."""
    return "foreign" in media_type or "nondistributable" in media_type
