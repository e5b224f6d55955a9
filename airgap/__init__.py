"""Carry an operator catalog and every image it needs across an air gap, digests unchanged.

``export`` puts catalogs into an archive, ``export_stream`` sends one through a pipe,
``import_archive`` pushes an archive to a registry, ``verify`` reads every byte of one,
``inspect`` says what one holds. ``split`` cuts one into
volumes and ``join`` makes one file of them; ``merge`` makes a whole one of deltas, and
``make_receipt`` writes down what a registry has of one. ``mirror`` copies from registry to
registry. Each returns a typed result with an ``exit_status``; what keeps one from finishing is
an ``AirgapError``.
"""

__version__ = "0.1.0"

from airgap.archive.medium import VolumeOptions
from airgap.archive.reader import VolumeFile
from airgap.attester import ReceiptResult, make_receipt
from airgap.errors import (
    AccessDenied,
    AirgapError,
    AlreadyFinished,
    ArchiveError,
    Blocked,
    Busy,
    CatalogError,
    IntegrityError,
    Interrupted,
    MalformedContent,
    MalformedDigest,
    MalformedReference,
    NotFound,
    Refused,
    RegistryError,
    StorageError,
    Unreachable,
    UsageError,
)
from airgap.exporter import ExportResult, export, export_stream
from airgap.importer import ImportResult, import_archive
from airgap.inspector import Inspection, inspect
from airgap.manifests import ManifestsOptions
from airgap.mirrorer import MirrorResult, mirror
from airgap.plan import Missing, Need
from airgap.question import Listed, Part
from airgap.registry.access import Access
from airgap.registry.account import HostActivity
from airgap.registry.transport import Patience
from airgap.reshaper import ReshapeResult, join, merge, split
from airgap.verifier import Damage, VerifyResult, verify

__all__ = [
    "Access",
    "AccessDenied",
    "AirgapError",
    "AlreadyFinished",
    "ArchiveError",
    "Blocked",
    "Busy",
    "CatalogError",
    "Damage",
    "ExportResult",
    "HostActivity",
    "ImportResult",
    "Inspection",
    "IntegrityError",
    "Interrupted",
    "Listed",
    "MalformedContent",
    "MalformedDigest",
    "MalformedReference",
    "ManifestsOptions",
    "MirrorResult",
    "Missing",
    "Need",
    "NotFound",
    "Part",
    "Patience",
    "ReceiptResult",
    "Refused",
    "RegistryError",
    "ReshapeResult",
    "StorageError",
    "Unreachable",
    "UsageError",
    "VerifyResult",
    "VolumeFile",
    "VolumeOptions",
    "__version__",
    "export",
    "export_stream",
    "import_archive",
    "inspect",
    "join",
    "make_receipt",
    "merge",
    "mirror",
    "split",
    "verify",
]
