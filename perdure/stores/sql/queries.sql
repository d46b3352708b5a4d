-- Named queries of the SQL store; loaded by perdure.stores.queries.

-- name: thread
SELECT * FROM threads WHERE thread_id = :thread_id

-- name: threads
SELECT thread_id FROM threads ORDER BY thread_id

-- name: new_thread
INSERT INTO threads (thread_id, agent, tenant, lineage, branch, turn, head_id, closed, created_at, updated_at)
VALUES (:thread_id, :agent, :tenant, :thread_id, 0, :turn, :checkpoint_id, 0, :created_at, :created_at)
ON CONFLICT (thread_id) DO NOTHING

-- name: move_head
UPDATE threads SET head_id = :checkpoint_id, turn = :turn, updated_at = :created_at
WHERE thread_id = :thread_id AND head_id = :parent_id

-- name: close_thread
UPDATE threads SET closed = 1 WHERE thread_id = :thread_id

-- name: add_checkpoint
INSERT INTO checkpoints (thread, checkpoint_id, parent_id, step, source, nodes, turn, schema_version, metadata,
    delta, size, digest, base_id, since_base, state_size, created_at, seal)
VALUES ((SELECT number FROM threads WHERE thread_id = :thread_id), :checkpoint_id, :parent_id, :step, :source, :nodes, :turn,
    :schema_version, :metadata, :delta, :size, :digest, :base_id, :since_base, :state_size, :created_ms, :seal)

-- name: checkpoint
SELECT * FROM checkpoints
WHERE thread = (SELECT number FROM threads WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id

-- name: line
WITH RECURSIVE line AS (
    SELECT * FROM checkpoints
    WHERE thread = (SELECT number FROM threads WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id
    UNION ALL
    SELECT parent.* FROM checkpoints AS parent JOIN line ON parent.thread = line.thread
        AND parent.checkpoint_id = line.parent_id AND parent.step < line.step
    WHERE line.base_id IS NULL OR line.checkpoint_id <> line.base_id
)
SELECT * FROM line ORDER BY step

-- name: history
SELECT * FROM checkpoints
WHERE thread = (SELECT number FROM threads WHERE thread_id = :thread_id) AND step < :before_step
ORDER BY step DESC, checkpoint_id DESC LIMIT :limit

-- name: walk
SELECT * FROM checkpoints
WHERE thread = (SELECT number FROM threads WHERE thread_id = :thread_id) AND step >= :step
    AND (step > :step OR checkpoint_id > :checkpoint_id)
ORDER BY step, checkpoint_id LIMIT :limit

-- name: add_snapshot
INSERT INTO snapshots (thread, checkpoint_id, state, digest)
VALUES ((SELECT number FROM threads WHERE thread_id = :thread_id), :checkpoint_id, :state, :digest)

-- name: snapshot
SELECT * FROM snapshots
WHERE thread = (SELECT number FROM threads WHERE thread_id = :thread_id) AND checkpoint_id = :checkpoint_id

-- name: snapshots
SELECT snapshots.* FROM snapshots LEFT JOIN checkpoints
    ON checkpoints.thread = snapshots.thread AND checkpoints.checkpoint_id = snapshots.checkpoint_id
WHERE snapshots.thread = (SELECT number FROM threads WHERE thread_id = :thread_id)
ORDER BY checkpoints.step

-- name: add_result
INSERT INTO results (request, thread, checkpoint_id, usage)
VALUES (:request, (SELECT number FROM threads WHERE thread_id = :thread_id), :checkpoint_id, :usage)
ON CONFLICT (request) DO NOTHING

-- name: result
SELECT thread_id, checkpoint_id, usage FROM results JOIN threads ON number = thread WHERE request = :request

-- name: add_receipt
INSERT INTO receipts (thread_id, key, result) VALUES (:thread_id, :key, :result) ON CONFLICT (thread_id, key) DO NOTHING

-- name: receipts
SELECT key, result FROM receipts WHERE thread_id = :thread_id AND key IN :keys

-- name: clear_receipts
DELETE FROM receipts WHERE thread_id = :thread_id AND key IN :keys

-- name: add_effect
INSERT INTO effects (thread_id, key, turn, step, position, tool, effect, summary, compensation, arguments,
    arguments_digest, status, attempts, error, settled_by, started_at, finished_at, undone_at)
VALUES (:thread_id, :key, :turn, :step, :position, :tool, :effect, :summary, :compensation, :arguments,
    :arguments_digest, 'attempted', 1, '', '', :now, '', '')
ON CONFLICT (thread_id, key) DO NOTHING

-- name: attempt_again
UPDATE effects SET attempts = attempts + 1, status = 'attempted', error = ''
WHERE thread_id = :thread_id AND key = :key AND status IN ('attempted', 'failed') AND effect <> 'irreversible'

-- name: effect
SELECT * FROM effects WHERE thread_id = :thread_id AND key = :key

-- name: effects
SELECT * FROM effects WHERE thread_id = :thread_id ORDER BY turn, step, position

-- name: effects_of_turn
SELECT * FROM effects WHERE thread_id = :thread_id AND turn = :turn ORDER BY step, position

-- name: finish_effect
UPDATE effects SET status = 'done', receipt = :receipt, finished_at = :now, error = ''
WHERE thread_id = :thread_id AND key = :key AND status IN ('attempted', 'in_doubt')

-- name: fail_effect
UPDATE effects SET status = 'failed', error = :error, finished_at = :now
WHERE thread_id = :thread_id AND key = :key AND status = 'attempted'

-- name: settle_effect
UPDATE effects SET status = :status, error = :error, settled_by = :by,
    undone_at = CASE WHEN :status = 'undone' THEN :now ELSE undone_at END,
    finished_at = CASE WHEN finished_at = '' THEN :now ELSE finished_at END
WHERE thread_id = :thread_id AND key = :key AND CASE :status
    WHEN 'in_doubt' THEN status = 'attempted'
    WHEN 'needs_attention' THEN status IN ('done', 'needs_attention')
    WHEN 'undone' THEN status IN ('done', 'needs_attention')
    WHEN 'done' THEN status IN ('in_doubt', 'needs_attention')
    ELSE status = 'in_doubt'
END

-- name: add_blob
INSERT INTO blobs (digest, kind, body) VALUES (:digest, :kind, :body) ON CONFLICT (digest) DO NOTHING

-- name: blob
SELECT body FROM blobs WHERE digest = :digest
