-- The spine: threads, checkpoints, snapshots, labels, results, receipts, ledger, audit. Its twin is in ../postgresql.

CREATE TABLE threads (
    thread_id      TEXT PRIMARY KEY,
    agent          TEXT NOT NULL,
    tenant         TEXT NOT NULL,
    lineage        TEXT NOT NULL,
    branch         INTEGER NOT NULL,
    turn           INTEGER NOT NULL,
    head_id        BLOB NOT NULL,
    schema_version INTEGER NOT NULL,
    closed         INTEGER NOT NULL,
    dry_run        INTEGER NOT NULL,
    audited        INTEGER NOT NULL,
    audit_digest   BLOB,
    origin_thread  TEXT NOT NULL,
    origin_id      BLOB,
    lease          TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX threads_by_origin ON threads (origin_thread) WHERE origin_thread <> '';

-- What stands for a thread in the tables that grow with every step. A table of its own, so that a thread whose row is
-- lost can still be found.
CREATE TABLE numbers (
    number    INTEGER PRIMARY KEY,
    thread_id TEXT NOT NULL UNIQUE
);

-- An id is the 16 bytes of its UUID. parent_thread: the number of the thread in which the parent is, where that is
-- another one. based: whether a snapshot stands at it. state_size: bytes of the whole state.
-- seal: over all the other columns (the digest is over what is the same in every copy of a checkpoint).
-- next: a list of nodes, or where more follows than those, the frontier as it is.
-- The delta comes last, so that whoever needs only what is before it doesn't read its pages.
-- A row may be larger than a quarter of a page. So WITHOUT ROWID, which gives each such row a page of its own, is out.
CREATE TABLE checkpoints (
    thread         INTEGER NOT NULL,
    parent_thread  INTEGER,
    created_at     INTEGER NOT NULL, -- milliseconds since 1970
    step           INTEGER NOT NULL,
    turn           INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    size           INTEGER NOT NULL,
    state_size     INTEGER NOT NULL,
    based          INTEGER NOT NULL,
    cut            INTEGER NOT NULL,
    checkpoint_id  BLOB NOT NULL,
    parent_id      BLOB,
    source         TEXT NOT NULL,
    nodes          TEXT NOT NULL,
    next           TEXT NOT NULL,
    metadata       TEXT NOT NULL,
    facts          TEXT NOT NULL,
    digest         BLOB NOT NULL,
    seal           BLOB NOT NULL,
    delta          BLOB NOT NULL,
    PRIMARY KEY (thread, checkpoint_id)
);
CREATE INDEX checkpoints_by_step ON checkpoints (thread, step);

-- A checkpoint with the names of its thread and of its parent's; '' where that thread isn't there.
CREATE VIEW checkpoint_rows AS
SELECT own.thread_id, checkpoints.*,
    CASE WHEN parent_thread IS NOT NULL THEN coalesce(other.thread_id, '') END AS parent_thread_id
FROM checkpoints JOIN numbers AS own ON own.number = thread LEFT JOIN numbers AS other ON other.number = parent_thread;

CREATE TABLE snapshots (
    thread        INTEGER NOT NULL,
    checkpoint_id BLOB NOT NULL,
    digest        BLOB NOT NULL,
    state         BLOB NOT NULL,
    PRIMARY KEY (thread, checkpoint_id)
);

-- What metadata is searched by, one row an entry. label: 16 bytes of the digest of its name and its value.
CREATE TABLE labels (
    thread        INTEGER NOT NULL,
    label         BLOB NOT NULL,
    created_at    INTEGER NOT NULL,
    checkpoint_id BLOB NOT NULL,
    PRIMARY KEY (thread, label, created_at, checkpoint_id)
) WITHOUT ROWID;
CREATE INDEX labels_everywhere ON labels (label, created_at, checkpoint_id);

-- request: 16 bytes of the digest of scope and key. A model's answer is kept once, in the checkpoint that is named here;
-- what else is cached is the value, until expires_at ('': for ever), which is expires_ms as a number.
CREATE TABLE results (
    thread        INTEGER,
    request       BLOB PRIMARY KEY,
    checkpoint_id BLOB,
    usage         TEXT NOT NULL,
    expires_at    TEXT NOT NULL,
    expires_ms    INTEGER,
    value         BLOB
);
CREATE INDEX results_by_thread ON results (thread) WHERE thread IS NOT NULL;
CREATE INDEX results_by_expiry ON results (expires_ms) WHERE expires_ms IS NOT NULL;

-- What calls returned, between their end and the commit of their step. Keys sort by their bytes.
CREATE TABLE receipts (
    thread_id TEXT NOT NULL,
    key       BLOB NOT NULL,
    result    BLOB NOT NULL,
    PRIMARY KEY (thread_id, key)
) WITHOUT ROWID;

-- claim: which call of the store began the latest attempt. seal: over all the other columns.
CREATE TABLE effects (
    thread_id        TEXT NOT NULL,
    key              BLOB NOT NULL,
    branch           INTEGER NOT NULL,
    turn             INTEGER NOT NULL,
    step             INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    checkpoint_id    BLOB,
    tool             TEXT NOT NULL,
    effect           TEXT NOT NULL,
    summary          TEXT NOT NULL,
    compensation     TEXT NOT NULL,
    reconcile        TEXT NOT NULL,
    saga             TEXT NOT NULL,
    source           TEXT NOT NULL,
    gate             TEXT NOT NULL,
    arguments_digest TEXT NOT NULL,
    status           TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    claim            BLOB NOT NULL,
    error            TEXT NOT NULL,
    settled_by       TEXT NOT NULL,
    started_at       TEXT NOT NULL,
    finished_at      TEXT NOT NULL,
    undone_at        TEXT NOT NULL,
    seal             BLOB NOT NULL,
    arguments        BLOB NOT NULL,
    receipt          BLOB,
    PRIMARY KEY (thread_id, key)
);
CREATE INDEX effects_by_turn ON effects (thread_id, turn);
CREATE INDEX effects_open ON effects (thread_id, key) WHERE status IN ('in_doubt', 'needs_attention');

-- Digests of one-time tokens, and which call has used each. They outlive the thread.
CREATE TABLE tokens (
    lineage   TEXT NOT NULL,
    token     BLOB NOT NULL,
    thread_id TEXT NOT NULL,
    key       BLOB NOT NULL,
    seal      BLOB NOT NULL,
    PRIMARY KEY (lineage, token)
) WITHOUT ROWID;

-- Lines that are only ever added. digest: over the line and the digest before it; the last one stands in threads.
CREATE TABLE audit (
    thread_id TEXT NOT NULL,
    number    INTEGER NOT NULL,
    id        BLOB NOT NULL,
    at        TEXT NOT NULL,
    kind      TEXT NOT NULL,
    digest    BLOB NOT NULL,
    body      BLOB NOT NULL,
    PRIMARY KEY (thread_id, number)
);
CREATE UNIQUE INDEX audit_by_id ON audit (thread_id, id);

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    kind   TEXT NOT NULL,
    body   BLOB NOT NULL
);
