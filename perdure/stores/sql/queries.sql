-- Named queries of the SQL store; loaded by perdure.stores.queries. Where PostgreSQL needs another one than SQLite, its
-- name ends in /postgresql: SQLite has one writer at a time, PostgreSQL locks the rows that a decision is based on.
-- A name may stand for several statements.

-- ── threads ─────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: thread
SELECT * FROM threads WHERE thread_id = :thread_id

-- name: thread_to_change
SELECT * FROM threads WHERE thread_id = :thread_id
-- name: thread_to_change/postgresql
SELECT * FROM threads WHERE thread_id = :thread_id FOR UPDATE

-- name: thread_to_rely_on
SELECT * FROM threads WHERE thread_id = :thread_id
-- name: thread_to_rely_on/postgresql
SELECT * FROM threads WHERE thread_id = :thread_id FOR SHARE

-- name: threads
SELECT * FROM threads WHERE thread_id > :after ORDER BY thread_id LIMIT :limit

-- name: forks
SELECT * FROM threads WHERE origin_thread = :thread_id AND origin_thread <> '' ORDER BY thread_id

-- name: add_number
INSERT INTO numbers (thread_id) VALUES (:thread_id) ON CONFLICT (thread_id) DO NOTHING

-- name: add_thread
INSERT INTO threads (thread_id, agent, tenant, lineage, branch, turn, head_id, schema_version, closed, dry_run,
    audited, audit_digest, origin_thread, origin_id, lease, created_at, updated_at)
VALUES (:thread_id, :agent, :tenant, :lineage, coalesce(CAST(:branch AS INTEGER), 0), :turn, :checkpoint_id,
    :schema_version, 0, :dry_run, (SELECT count(*) FROM audit WHERE thread_id = :thread_id),
    (SELECT digest FROM audit WHERE thread_id = :thread_id ORDER BY number DESC LIMIT 1), :origin_thread, :origin_id, '',
    :committed_at, :committed_at)
ON CONFLICT (thread_id) DO NOTHING

-- name: move_head
UPDATE threads SET head_id = :checkpoint_id, turn = :turn, schema_version = :schema_version,
    branch = coalesce(CAST(:branch AS INTEGER), branch), updated_at = :committed_at
WHERE thread_id = :thread_id AND head_id = :extends

-- name: set_head
UPDATE threads SET head_id = :checkpoint_id, turn = :turn, schema_version = :schema_version,
    branch = coalesce(CAST(:branch AS INTEGER), branch), updated_at = :committed_at
WHERE thread_id = :thread_id

-- name: close_thread
UPDATE threads SET closed = 1 WHERE thread_id = :thread_id

-- name: set_lease
UPDATE threads SET lease = :lease WHERE thread_id = :thread_id

-- name: delete_thread
DELETE FROM results WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id);
DELETE FROM labels WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id);
DELETE FROM snapshots WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id);
DELETE FROM checkpoints WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id);
DELETE FROM receipts WHERE thread_id = :thread_id;
DELETE FROM effects WHERE thread_id = :thread_id;
DELETE FROM audit WHERE thread_id = :thread_id;
DELETE FROM numbers WHERE thread_id = :thread_id;
DELETE FROM threads WHERE thread_id = :thread_id

-- name: copy_thread
INSERT INTO threads (thread_id, agent, tenant, lineage, branch, turn, head_id, schema_version, closed, dry_run,
    audited, audit_digest, origin_thread, origin_id, lease, created_at, updated_at)
SELECT :target, agent, tenant, :target, branch, turn, head_id, schema_version, closed, dry_run,
    0, NULL, origin_thread, origin_id, '', created_at, updated_at
FROM threads WHERE thread_id = :thread_id
ON CONFLICT (thread_id) DO NOTHING

-- name: copy_parts
INSERT INTO snapshots (thread, checkpoint_id, state, digest)
SELECT (SELECT number FROM numbers WHERE thread_id = :target), checkpoint_id, state, digest
FROM snapshots WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id);
INSERT INTO labels (thread, label, created_at, checkpoint_id)
SELECT (SELECT number FROM numbers WHERE thread_id = :target), label, created_at, checkpoint_id
FROM labels WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id);
INSERT INTO receipts (thread_id, key, result)
SELECT :target, key, result FROM receipts WHERE thread_id = :thread_id

-- ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: add_checkpoint
INSERT INTO checkpoints (thread, checkpoint_id, parent_thread, parent_id, step, based, cut, source, nodes, turn,
    schema_version, next, metadata, facts, size, state_size, created_at, digest, seal, delta)
SELECT number, :checkpoint_id, (SELECT number FROM numbers WHERE thread_id = :parent_thread_id), :parent_id, :step,
    :based, :cut, :source, :nodes, :turn, :schema_version, :next, :metadata, :facts, :size, :state_size, :created_at,
    :digest, :seal, :delta
FROM numbers WHERE thread_id = :thread_id AND (CAST(:orphan AS INTEGER) = 1 OR EXISTS (
    SELECT 1 FROM checkpoints AS parent WHERE parent.checkpoint_id = :parent_id
        AND parent.thread = coalesce((SELECT number FROM numbers WHERE thread_id = :parent_thread_id), number)))
ON CONFLICT (thread, checkpoint_id) DO NOTHING

-- name: cut_checkpoint
UPDATE checkpoints SET based = 1, cut = 1, state_size = :state_size, seal = :seal
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id

-- name: checkpoint
SELECT * FROM checkpoint_rows
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id

-- name: first_checkpoint
SELECT parent_thread_id, parent_id FROM checkpoint_rows
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) ORDER BY step LIMIT 1

-- name: links
SELECT checkpoint_id, parent_thread, parent_id FROM checkpoints
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id)

-- name: end_of_line
SELECT thread_id, parent_thread_id, checkpoint_id, parent_id, step, based, cut, source, nodes, turn, schema_version, next,
    metadata, facts, size, digest, seal, state_size, created_at
FROM checkpoint_rows
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id

-- In no order: a database sorts whole rows, deltas and all, where the store sorts pointers to them.
-- name: line
WITH RECURSIVE line AS (
    SELECT thread, checkpoint_id, parent_thread, parent_id, step, based, cut, source, nodes, turn, schema_version, next,
        delta, digest
    FROM checkpoints
    WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id
    UNION ALL
    SELECT parent.thread, parent.checkpoint_id, parent.parent_thread, parent.parent_id, parent.step, parent.based,
        parent.cut, parent.source, parent.nodes, parent.turn, parent.schema_version, parent.next, parent.delta,
        parent.digest
    FROM line JOIN checkpoints AS parent ON parent.thread = coalesce(line.parent_thread, line.thread)
        AND parent.checkpoint_id = line.parent_id AND parent.step < line.step
    WHERE line.based = 0 AND line.cut = 0
)
SELECT own.thread_id, line.checkpoint_id, step, based, cut, source, nodes, turn, schema_version, next, delta,
    line.digest, snapshots.state, snapshots.digest AS state_digest
FROM line JOIN numbers AS own ON own.number = line.thread
    LEFT JOIN snapshots ON snapshots.thread = line.thread AND snapshots.checkpoint_id = line.checkpoint_id
        AND line.based + line.cut > 0

-- name: path
WITH RECURSIVE path AS (
    SELECT checkpoints.*, 1 AS length FROM checkpoints
    WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id
    UNION ALL
    SELECT parent.*, length + 1
    FROM path JOIN checkpoints AS parent ON parent.thread = coalesce(path.parent_thread, path.thread)
        AND parent.checkpoint_id = path.parent_id AND parent.step < path.step
    WHERE length < :limit AND path.cut = 0
)
SELECT own.thread_id, path.*,
    CASE WHEN parent_thread IS NOT NULL THEN coalesce(other.thread_id, '') END AS parent_thread_id
FROM path JOIN numbers AS own ON own.number = thread LEFT JOIN numbers AS other ON other.number = parent_thread
ORDER BY length

-- Unlike the two above, these two carry no deltas along.
-- name: ancestor
WITH RECURSIVE path (thread, checkpoint_id, parent_thread, parent_id, step, cut) AS (
    SELECT thread, checkpoint_id, parent_thread, parent_id, step, cut FROM checkpoints
    WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id
    UNION ALL
    SELECT parent.thread, parent.checkpoint_id, parent.parent_thread, parent.parent_id, parent.step, parent.cut
    FROM path JOIN checkpoints AS parent ON parent.thread = coalesce(path.parent_thread, path.thread)
        AND parent.checkpoint_id = path.parent_id AND parent.step < path.step
    WHERE path.step > :step AND path.cut = 0
)
SELECT checkpoint_rows.* FROM path JOIN checkpoint_rows
    ON checkpoint_rows.thread = path.thread AND checkpoint_rows.checkpoint_id = path.checkpoint_id
WHERE path.step = :step

-- name: landmarks
WITH RECURSIVE path (thread, checkpoint_id, parent_thread, parent_id, step, cut, source, turn, length) AS (
    SELECT thread, checkpoint_id, parent_thread, parent_id, step, cut, source, turn, 1 FROM checkpoints
    WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id
    UNION ALL
    SELECT parent.thread, parent.checkpoint_id, parent.parent_thread, parent.parent_id, parent.step, parent.cut,
        parent.source, parent.turn, length + 1
    FROM path JOIN checkpoints AS parent ON parent.thread = coalesce(path.parent_thread, path.thread)
        AND parent.checkpoint_id = path.parent_id AND parent.step < path.step
    WHERE length < :limit AND path.cut = 0 AND (CAST(:in_turn AS INTEGER) = 0 OR parent.turn = path.turn)
)
SELECT checkpoint_rows.* FROM path JOIN checkpoint_rows
    ON checkpoint_rows.thread = path.thread AND checkpoint_rows.checkpoint_id = path.checkpoint_id
WHERE path.source <> 'step' ORDER BY length

-- name: walk
SELECT * FROM checkpoint_rows
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND step >= :step
    AND (step > :step OR checkpoint_id > :checkpoint_id)
ORDER BY step, checkpoint_id LIMIT :limit

-- name: put_snapshot
INSERT INTO snapshots (thread, checkpoint_id, state, digest)
SELECT number, :checkpoint_id, :state, :digest FROM numbers WHERE thread_id = :thread_id
ON CONFLICT (thread, checkpoint_id) DO UPDATE SET state = excluded.state, digest = excluded.digest

-- name: snapshots
SELECT snapshots.* FROM snapshots LEFT JOIN checkpoints
    ON checkpoints.thread = snapshots.thread AND checkpoints.checkpoint_id = snapshots.checkpoint_id
WHERE snapshots.thread = (SELECT number FROM numbers WHERE thread_id = :thread_id)
ORDER BY coalesce(checkpoints.step, -1), snapshots.checkpoint_id

-- name: delete_damaged
DELETE FROM labels
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id;
DELETE FROM checkpoints
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id

-- name: delete_checkpoints
DELETE FROM results
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id IN :keys;
DELETE FROM labels
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id IN :keys;
DELETE FROM snapshots
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id IN :keys;
DELETE FROM checkpoints
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id IN :keys

-- ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: add_label
INSERT INTO labels (thread, label, created_at, checkpoint_id)
SELECT number, :label, :created_at, :checkpoint_id FROM numbers WHERE thread_id = :thread_id
ON CONFLICT (thread, label, created_at, checkpoint_id) DO NOTHING

-- name: count_label
SELECT count(*) AS count FROM (SELECT 1 FROM labels WHERE label = :label LIMIT 1000) AS first_ones

-- name: find
SELECT checkpoint_rows.* FROM labels JOIN checkpoint_rows
    ON checkpoint_rows.thread = labels.thread AND checkpoint_rows.checkpoint_id = labels.checkpoint_id
WHERE label = :label AND :more = (
    SELECT count(*) FROM labels AS other WHERE other.thread = labels.thread AND other.label IN :keys
        AND other.created_at = labels.created_at AND other.checkpoint_id = labels.checkpoint_id)
ORDER BY labels.created_at DESC, labels.checkpoint_id DESC LIMIT :limit

-- name: find_in_thread
SELECT checkpoint_rows.* FROM labels JOIN checkpoint_rows
    ON checkpoint_rows.thread = labels.thread AND checkpoint_rows.checkpoint_id = labels.checkpoint_id
WHERE labels.thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND label = :label AND :more = (
    SELECT count(*) FROM labels AS other WHERE other.thread = labels.thread AND other.label IN :keys
        AND other.created_at = labels.created_at AND other.checkpoint_id = labels.checkpoint_id)
ORDER BY labels.created_at DESC, labels.checkpoint_id DESC LIMIT :limit

-- name: newest
SELECT * FROM checkpoint_rows ORDER BY created_at DESC, checkpoint_id DESC LIMIT :limit

-- name: newest_in_thread
SELECT * FROM checkpoint_rows WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id)
ORDER BY created_at DESC, checkpoint_id DESC LIMIT :limit

-- ── results ─────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: put_result
INSERT INTO results (request, thread, checkpoint_id, usage, expires_at, expires_ms, value)
VALUES (:request, (SELECT number FROM numbers WHERE thread_id = :thread_id), :checkpoint_id, :usage, :expires_at,
    :expires_ms, :value)
ON CONFLICT (request) DO UPDATE SET thread = excluded.thread, checkpoint_id = excluded.checkpoint_id,
    usage = excluded.usage, expires_at = excluded.expires_at, expires_ms = excluded.expires_ms, value = excluded.value

-- name: result
SELECT coalesce(thread_id, '') AS thread_id, checkpoint_id, usage, expires_at, value
FROM results LEFT JOIN numbers ON number = thread
WHERE request = :request AND (expires_ms IS NULL OR expires_ms > :now_ms)

-- name: stray_results
SELECT DISTINCT checkpoint_id FROM results
WHERE thread = (SELECT number FROM numbers WHERE thread_id = :thread_id) AND checkpoint_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM checkpoints
        WHERE checkpoints.thread = results.thread AND checkpoints.checkpoint_id = results.checkpoint_id)

-- name: delete_expired
DELETE FROM results WHERE expires_ms <= :now_ms

-- ── receipts ────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: add_receipt
INSERT INTO receipts (thread_id, key, result) VALUES (:thread_id, :key, :receipt)
ON CONFLICT (thread_id, key) DO NOTHING

-- name: receipts
SELECT key, result FROM receipts WHERE thread_id = :thread_id AND key IN :keys

-- name: receipts_under
SELECT key, result FROM receipts WHERE thread_id = :thread_id AND key >= :first AND key < :beyond ORDER BY key

-- name: receipt_keys
SELECT key FROM receipts WHERE thread_id = :thread_id

-- name: clear_receipts
DELETE FROM receipts WHERE thread_id = :thread_id AND key IN :keys

-- ── effects ─────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: add_effect
INSERT INTO effects (thread_id, key, branch, turn, step, position, checkpoint_id, tool, effect, summary, compensation,
    reconcile, saga, source, gate, arguments, arguments_digest, status, attempts, claim, error, settled_by, started_at,
    finished_at, undone_at, receipt, seal)
VALUES (:thread_id, :key, :branch, :turn, :step, :position, :checkpoint_id, :tool, :effect, :summary, :compensation,
    :reconcile, :saga, :source, :gate, :arguments, :arguments_digest, :status, :attempts, :claim, :error, :settled_by,
    :started_at, :finished_at, :undone_at, :receipt, :seal)
ON CONFLICT (thread_id, key) DO NOTHING

-- name: change_effect
UPDATE effects SET status = :status, attempts = :attempts, claim = :claim, error = :error, settled_by = :settled_by,
    saga = :saga, finished_at = :finished_at, undone_at = :undone_at, receipt = :receipt, seal = :seal
WHERE thread_id = :thread_id AND key = :key

-- name: effect
SELECT * FROM effects WHERE thread_id = :thread_id AND key = :key

-- name: effect_to_change
SELECT * FROM effects WHERE thread_id = :thread_id AND key = :key
-- name: effect_to_change/postgresql
SELECT * FROM effects WHERE thread_id = :thread_id AND key = :key FOR UPDATE

-- name: effects
SELECT * FROM effects WHERE thread_id = :thread_id ORDER BY branch, turn, step, position, key

-- name: effects_of_turn
SELECT * FROM effects WHERE thread_id = :thread_id AND turn = :turn ORDER BY branch, step, position, key

-- name: open_effects
SELECT * FROM effects WHERE status IN ('in_doubt', 'needs_attention')
    AND (thread_id, key) > (:after_thread, :after_key)
ORDER BY thread_id, key LIMIT :limit

-- ── one-time tokens ─────────────────────────────────────────────────────────────────────────────────────────────────

-- name: add_token
INSERT INTO tokens (lineage, token, thread_id, key, seal) VALUES (:lineage, :token, :thread_id, :key, :seal)
ON CONFLICT (lineage, token) DO NOTHING

-- name: token_to_change
SELECT * FROM tokens WHERE lineage = :lineage AND token = :token
-- name: token_to_change/postgresql
SELECT * FROM tokens WHERE lineage = :lineage AND token = :token FOR UPDATE

-- name: move_token
UPDATE tokens SET thread_id = :thread_id, key = :key, seal = :seal WHERE lineage = :lineage AND token = :token

-- ── audit ───────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: add_line
INSERT INTO audit (thread_id, number, id, at, kind, digest, body)
VALUES (:thread_id, :number, :id, :at, :kind, :digest, :body)

-- name: set_audit_end
UPDATE threads SET audited = :number, audit_digest = :digest WHERE thread_id = :thread_id

-- name: audit
SELECT * FROM audit WHERE thread_id = :thread_id AND number > :after ORDER BY number LIMIT :limit

-- name: lines_known
SELECT id FROM audit WHERE thread_id = :thread_id AND id IN :keys

-- ── blobs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: add_blob
INSERT INTO blobs (digest, kind, body) VALUES (:digest, :kind, :body) ON CONFLICT (digest) DO NOTHING

-- name: blob
SELECT body FROM blobs WHERE digest = :digest
