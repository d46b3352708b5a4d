"""What a database takes: its bytes on disk, tables and indexes and all."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

_TABLES = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
WHERE relkind = 'r' AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""


def store_bytes(url: str) -> int:
    """Bytes of a store: of ``sqlite:///FILE`` the file, once its write-ahead log has been taken in; of
    ``postgresql://…`` its tables with their indexes and TOAST."""
    if urlsplit(url).scheme == "sqlite":
        return sqlite_bytes(Path(urlsplit(url).path.removeprefix("/")))
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_TABLES).fetchone()
    assert row is not None
    return int(row[0])


def sqlite_bytes(file: Path) -> int:
    """Bytes of a SQLite file, once its write-ahead log has been taken in; of one that isn't there none."""
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size
