"""Carry an operator catalog and every image it needs across an air gap, digests unchanged.

``export`` puts catalogs into an archive, ``export_stream`` sends one through a pipe,
``import_archive`` pushes an archive to a registry, ``verify`` reads every byte of one,
``inspect`` says what one holds. ``split`` cuts one into
volumes and ``join`` makes one file of them; ``merge`` makes a whole one of deltas, and
``make_receipt`` writes down what a registry has of one. ``mirror`` copies from registry to
registry. Each returns a typed result with an ``exit_status``; what keeps one from finishing is
an ``AirgapError``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from airgap.archive.medium import VolumeOptions
    from airgap.archive.reader import VolumeFile
    from airgap.attester import ReceiptResult, make_receipt
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

__version__ = "0.1.0"

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

_HOMES = {
    "airgap.archive.medium": "VolumeOptions",
    "airgap.archive.reader": "VolumeFile",
    "airgap.attester": "ReceiptResult make_receipt",
    "airgap.exporter": "ExportResult export export_stream",
    "airgap.importer": "ImportResult import_archive",
    "airgap.inspector": "Inspection inspect",
    "airgap.manifests": "ManifestsOptions",
    "airgap.mirrorer": "MirrorResult mirror",
    "airgap.plan": "Missing Need",
    "airgap.question": "Listed Part",
    "airgap.registry.access": "Access",
    "airgap.registry.account": "HostActivity",
    "airgap.registry.transport": "Patience",
    "airgap.reshaper": "ReshapeResult join merge split",
    "airgap.verifier": "Damage VerifyResult verify",
}
"""Where what is offered here is: loaded when it is asked for, as no command needs all of it."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
