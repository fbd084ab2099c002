-- Task $1 is done, with message $2, rows $3, bytes $4 and why it is left uncompressed
-- ($5). The transaction began
-- before the copy.
update __backfill.task
set worked = tstzrange(now(), clock_timestamp(), '[]'), copy_message = $2, failed = null,
    verified = null, verify_message = null, rows = $3, bytes = $4,
    left_uncompressed = nullif($5, '')
where priority = $1
