-- What tables demand of their rows, beside foreign keys: checks, unique indexes
-- (those of constraints among them), columns that must not be null. As text that
-- is the same on two servers where the demand is the same.
select conrelid, pg_get_constraintdef(oid)
from pg_constraint
where conrelid = any($1) and contype in ('c', 'x')
union all
select indrelid, 'UNIQUE ' || substring(pg_get_indexdef(indexrelid) from ' USING (.*)$')
from pg_index
where indrelid = any($1) and indisunique
union all
select attrelid, format('%I NOT NULL', attname)
from pg_attribute
where attrelid = any($1) and attnum > 0 and attnotnull and not attisdropped
order by 1, 2
