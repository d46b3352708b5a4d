-- The spine: threads, checkpoints, snapshots, results, ledger.

-- number stands for the thread in the tables that grow with every step.
CREATE TABLE threads (
    number     INTEGER PRIMARY KEY,
    thread_id  TEXT NOT NULL UNIQUE,
    agent      TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    lineage    TEXT NOT NULL,
    branch     INTEGER NOT NULL,
    turn       INTEGER NOT NULL,
    head_id    BLOB NOT NULL,
    closed     INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);

-- An id is the 16 bytes of its UUID. base_id: the nearest ancestor (or itself) with a snapshot; since_base: bytes of
-- that snapshot and of the deltas after it; state_size: bytes of the whole state. The three serve to decide when to
-- take a snapshot. seal: over all the other columns; the digest is over what is the same in every copy of a checkpoint.
-- A row may be larger than a quarter of a page; so WITHOUT ROWID, which gives each such row a page of its own, is out.
CREATE TABLE checkpoints (
    thread         INTEGER NOT NULL,
    checkpoint_id  BLOB NOT NULL,
    parent_id      BLOB,
    step           INTEGER NOT NULL,
    source         TEXT NOT NULL,
    nodes          TEXT NOT NULL,
    turn           INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    metadata       TEXT NOT NULL,
    delta          BLOB NOT NULL,
    size           INTEGER NOT NULL,
    digest         BLOB NOT NULL,
    base_id        BLOB,
    since_base     INTEGER NOT NULL,
    state_size     INTEGER NOT NULL,
    created_at     INTEGER NOT NULL, -- milliseconds since 1970
    seal           BLOB NOT NULL,
    PRIMARY KEY (thread, checkpoint_id)
);
CREATE INDEX checkpoints_by_step ON checkpoints (thread, step);

CREATE TABLE snapshots (
    thread        INTEGER NOT NULL,
    checkpoint_id BLOB NOT NULL,
    state         BLOB NOT NULL,
    digest        BLOB NOT NULL,
    PRIMARY KEY (thread, checkpoint_id)
);

-- A model answer is kept once, in its checkpoint; this finds it by the digest of scope and request.
CREATE TABLE results (
    request       BLOB PRIMARY KEY,
    thread        INTEGER NOT NULL,
    checkpoint_id BLOB NOT NULL,
    usage         TEXT NOT NULL
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
