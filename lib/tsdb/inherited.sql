-- Marks the columns and checks that the chunk $1 inherits as inherited only, as the server
-- does with the chunks that it makes.
-- <= 2.29.0: it does not with a table that is attached.
with columns as (
    update pg_attribute set attislocal = false
    where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attislocal and attinhcount > 0
)
update pg_constraint set conislocal = false
where conrelid = $1::text::regclass and conislocal and coninhcount > 0
