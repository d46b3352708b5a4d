-- The spine: threads, checkpoints, snapshots, results, ledger.

CREATE TABLE threads (
    thread_id  TEXT PRIMARY KEY,
    agent      TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    lineage    TEXT NOT NULL,
    branch     INTEGER NOT NULL,
    turn       INTEGER NOT NULL,
    head_id    TEXT NOT NULL,
    closed     INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);

-- base_id: the nearest ancestor (or itself) with a snapshot; since_base: bytes of deltas after it;
-- state_size: about the bytes of the whole state. All three only serve to decide when to take a snapshot.
CREATE TABLE checkpoints (
    thread_id      TEXT NOT NULL,
    checkpoint_id  TEXT NOT NULL,
    parent_id      TEXT,
    step           INTEGER NOT NULL,
    source         TEXT NOT NULL,
    nodes          TEXT NOT NULL,
    turn           INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    metadata       TEXT NOT NULL,
    delta          BLOB NOT NULL,
    size           INTEGER NOT NULL,
    digest         BLOB NOT NULL,
    base_id        TEXT,
    since_base     INTEGER NOT NULL,
    state_size     INTEGER NOT NULL,
    created_at     TEXT NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_id)
) WITHOUT ROWID;

CREATE TABLE snapshots (
    thread_id     TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    state         BLOB NOT NULL,
    digest        BLOB NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_id)
);

-- A model answer is kept once, in its checkpoint; this finds it by the content of the request.
CREATE TABLE results (
    scope         TEXT NOT NULL,
    key           TEXT NOT NULL,
    thread_id     TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    usage         TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

-- What calls returned, between their end and the commit of their step.
CREATE TABLE receipts (
    thread_id TEXT NOT NULL,
    key       TEXT NOT NULL,
    result    BLOB NOT NULL,
    PRIMARY KEY (thread_id, key)
) WITHOUT ROWID;

CREATE TABLE effects (
    thread_id        TEXT NOT NULL,
    key              TEXT NOT NULL,
    turn             INTEGER NOT NULL,
    step             INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    tool             TEXT NOT NULL,
    effect           TEXT NOT NULL,
    summary          TEXT NOT NULL,
    compensation     TEXT NOT NULL,
    arguments        BLOB NOT NULL,
    arguments_digest TEXT NOT NULL,
    status           TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    receipt          BLOB,
    error            TEXT NOT NULL,
    settled_by       TEXT NOT NULL,
    started_at       TEXT NOT NULL,
    finished_at      TEXT NOT NULL,
    undone_at        TEXT NOT NULL,
    PRIMARY KEY (thread_id, key)
);
CREATE INDEX effects_by_turn ON effects (thread_id, turn, step, position);

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    kind   TEXT NOT NULL,
    body   BLOB NOT NULL
);
