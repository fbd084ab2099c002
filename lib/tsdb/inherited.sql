-- Nothing of the chunk $1 is its own but what it does not inherit: so the server has it
-- with its own chunks, and from 2.29.1 on with a table that was attached.
with columns as (
    update pg_attribute set attislocal = false
    where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attislocal and attinhcount > 0
)
update pg_constraint set conislocal = false
where conrelid = $1::text::regclass and conislocal and coninhcount > 0
