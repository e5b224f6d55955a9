"""How registries are reached: what an operator says once for a whole run."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airgap.registry import pace
from airgap.registry.client import RegistryClient
from airgap.registry.credentials import Credentials
from airgap.registry.registries_conf import RegistriesConf
from airgap.registry.retry import StoppableClock
from airgap.registry.transport import Patience, Transport

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from airgap.registry.retry import Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """Credentials, trust, mirrors, and how many requests at once one registry gets at most.

    ``insecure`` concerns only the hosts that the operator names in the same breath: the
    catalogs' on export, the destination's on import. Files that are None are looked for in
    the usual places. ``patience`` is had with silent hosts; ``clock`` makes, from the event
    that stops a run, what its waits between attempts go by.
    """

    registry_config: Path | None = None
    registries_conf: Path | None = None
    insecure: bool = False
    certificate_authority: Path | None = None
    connections: int = pace.MOST
    patience: Patience = field(default_factory=Patience)
    clock: Callable[[threading.Event], Clock] = StoppableClock

    def connect(
        self, named_hosts: Iterable[str], stop: threading.Event, *, writes: bool = False
    ) -> RegistryClient:
        """Return a client; ``stop`` ends its waits, ``writes`` says that it will push.

        Raises UsageError for unusable files.
        """
        transport = Transport(
            environ=os.environ,
            certificate_authority=self.certificate_authority,
            insecure=frozenset(named_hosts) if self.insecure else frozenset(),
            most=self.connections,
            clock=self.clock(stop),
            patience=self.patience,
        )
        credentials = Credentials.load(self.registry_config, os.environ, _home())
        for warning in credentials.warnings:
            _log.warning("%s", warning)
        registries = RegistriesConf.load(self.registries_conf, os.environ)
        return RegistryClient(transport, credentials, registries, writes=writes)


def _home() -> Path:
    """Return the home directory; one without credentials for a user that has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")
