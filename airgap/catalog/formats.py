"""The formats of catalogs by their names, and the labels of an image that say where one is."""

CONFIGS_LABEL = "operators.operatorframework.io.index.configs.v1"
"""Names the directory of a file-based catalog; wins over the other label."""

DATABASE_LABEL = "operators.operatorframework.io.index.database.v1"
"""Names the database of a SQLite catalog."""

SQLITE = "sqlite"
"""The format of operator-registry's databases."""

FILE_BASED = "file-based"
"""The format of documents in YAML or JSON, also called declarative configs."""

PACKAGE_MANIFESTS = "package-manifests"
"""The format of directories of packages and ClusterServiceVersions."""
