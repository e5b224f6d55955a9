"""How much of anything foreign is read before it is refused. Bytes, unless a name says else.

The values follow what containers/image, containerd and go-containerregistry allow; each is
far above what real content needs and far below what would hurt.
"""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

CHUNK = 256 * KIB
"""Content moves in pieces of this size: a larger fresh buffer costs more page faults than calls.

Measured on an export of 700 MB: a fifth less time than with 1 MiB, and half the memory.
"""

MANIFEST = 4 * MIB
"""A manifest or index; docker-registry refuses larger ones, so they could not arrive."""

BLOB = 1 << 38
"""The size a descriptor may claim: 256 GiB. One that claims more costs its own image only."""

CONTENT = 1 << 60
"""The sizes of all content of an archive together."""

NAME = 4 * KIB
"""The text of a reference, a bundle's or a package's name, as a catalog writes it."""

TOKEN = MIB
"""The answer of a token service."""

ERROR_BODY = 64 * KIB
"""What is read of an answer that refuses."""

CONFIGURATION_FILE = MIB
"""auth.json, registries.conf, a certificate bundle's path list."""

INDEX_DEPTH = 8
"""Levels of indexes inside indexes."""

MANIFESTS_PER_IMAGE = 10_000
LAYERS_PER_MANIFEST = 512

CATALOG_LAYER = 4 * GIB
"""A catalog image's layer, after decompression."""

DECOMPRESSION_RATIO = 1_100
"""gzip cannot honestly do better (1 : 1032)."""

ENTRY_NAME = 4_096
"""A file name inside a layer."""

ENTRIES_PER_LAYER = 1_000_000

CATALOG_DATABASE = 2 * GIB
CATALOG_CELL = 64 * MIB
CATALOG_ROWS = 10_000_000

CATALOG_DOCUMENT = 16 * MIB
"""One YAML or JSON document of a catalog; ``opm`` itself reads no YAML of more than 5 MiB."""

CATALOG_VALUES = 1_000_000
"""Scalars, lists and mappings in one such document, aliases followed."""

CATALOG_NESTING = 200
"""Lists and mappings inside each other; Kubernetes objects have some twenty."""

CATALOG_TEXT = 256 * MIB
"""Names and references kept of one catalog; the largest have some ten megabytes."""

INVENTORY = GIB
INVENTORY_LINE = 16 * MIB
RECEIPT = 256 * MIB
"""A receipt that comes back; one of 10,000 images has a sixth of it."""

RECEIPT_LINE = 16 * MIB
SIGNATURE = 32 * KIB
"""The place kept for signatures in an archive; its size is part of the format."""

TAGS = 1_000_000
PAGES = 10_000
REDIRECTS = 5
