"""The tables of operator-registry's database at schema level 13, with nothing in them.

Names, columns, their order and keys are those that ``opm`` and everybody's queries know.
"""

from __future__ import annotations

LEVEL = 13
"""operator-registry's last level; later versions of it have no databases any more."""

BUNDLE_KEY = "operatorbundle_name, operatorbundle_version, operatorbundle_path"
"""The columns by which other tables know a bundle."""

_OF_BUNDLE = f"""
    operatorbundle_name TEXT, operatorbundle_version TEXT, operatorbundle_path TEXT,
    FOREIGN KEY ({BUNDLE_KEY}) REFERENCES operatorbundle (name, version, bundlepath)
        ON DELETE CASCADE"""
_API_OF_BUNDLE = f"""group_name TEXT, version TEXT, kind TEXT, {_OF_BUNDLE}
        DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (group_name, version, kind) REFERENCES api (group_name, version, kind)
        ON DELETE CASCADE"""
_SAME_API = "group_name = OLD.group_name AND version = OLD.version AND kind = OLD.kind"


def _cleanup(table: str) -> str:
    return f"""
CREATE TRIGGER {table}_cleanup AFTER DELETE ON {table}
WHEN NOT EXISTS (SELECT 1 FROM api_provider WHERE {_SAME_API})
    AND NOT EXISTS (SELECT 1 FROM api_requirer WHERE {_SAME_API})
BEGIN DELETE FROM api WHERE {_SAME_API}; END;
"""


SCHEMA = f"""
CREATE TABLE schema_migrations (
    version BIGINT NOT NULL, timestamp DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE operatorbundle (
    name TEXT PRIMARY KEY, csv TEXT, bundle TEXT, bundlepath TEXT, skiprange TEXT,
    version TEXT, replaces TEXT, skips TEXT, substitutesfor TEXT
);
CREATE UNIQUE INDEX pk ON operatorbundle (name, version, bundlepath);
CREATE TABLE package (
    name TEXT PRIMARY KEY, default_channel TEXT,
    FOREIGN KEY (name, default_channel) REFERENCES channel (package_name, name)
        ON DELETE CASCADE
);
CREATE TABLE channel (
    name TEXT, package_name TEXT, head_operatorbundle_name TEXT,
    PRIMARY KEY (name, package_name),
    FOREIGN KEY (head_operatorbundle_name) REFERENCES operatorbundle (name) ON DELETE CASCADE
);
CREATE TABLE channel_entry (
    entry_id INTEGER PRIMARY KEY, channel_name TEXT, package_name TEXT,
    operatorbundle_name TEXT, replaces INTEGER, depth INTEGER,
    FOREIGN KEY (replaces) REFERENCES channel_entry (entry_id) DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (channel_name, package_name) REFERENCES channel (name, package_name)
        ON DELETE CASCADE
);
CREATE TABLE api (
    group_name TEXT, version TEXT, kind TEXT, plural TEXT NOT NULL,
    PRIMARY KEY (group_name, version, kind)
);
CREATE TABLE api_provider ({_API_OF_BUNDLE});
CREATE TABLE api_requirer ({_API_OF_BUNDLE});
CREATE TABLE related_image (
    image TEXT, operatorbundle_name TEXT,
    FOREIGN KEY (operatorbundle_name) REFERENCES operatorbundle (name) ON DELETE CASCADE
);
CREATE TABLE dependencies (type TEXT, value TEXT, {_OF_BUNDLE});
CREATE TABLE properties (type TEXT, value TEXT, {_OF_BUNDLE});
CREATE TABLE deprecated (operatorbundle_name TEXT PRIMARY KEY);
{_cleanup("api_provider")}{_cleanup("api_requirer")}
CREATE TEMP TABLE plural (group_name TEXT, version TEXT, kind TEXT, plural TEXT);
CREATE TEMP TABLE is_deprecated (operatorbundle_name TEXT PRIMARY KEY);
"""
"""Makes the tables, and two that are gone with the connection: what comes in any order."""

FINISH = f"""
INSERT INTO schema_migrations VALUES ({LEVEL}, NULL);
INSERT INTO deprecated SELECT * FROM is_deprecated ORDER BY 1;
INSERT INTO api SELECT group_name, version, kind, MAX(plural) FROM plural
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
"""
"""Fills the tables that must not show in which order their rows came."""
