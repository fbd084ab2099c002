-- The verdict on task $1, unless it was copied again since its worked ($5) was read:
-- equal or not ($2), after $3 seconds, with message $4.
update __backfill.task
set verified = case when $2
        then tstzrange(clock_timestamp() - $3::float8 * interval '1 second', clock_timestamp(), '[]') end,
    verify_message = $4
where priority = $1 and worked::text = $5
