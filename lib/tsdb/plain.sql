-- The relation of a name that can be a source without being a hypertable. What
-- is added at the end leaves out hypertables.
select c.oid, c.relkind::text
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'v', 'm', 'f')
