-- The tables that reference one of the hypertables ($1), by themselves or by way
-- of others: there their rows would reference nothing. Hypertables, chunks and
-- partitions ($2) are not named, keys that are left out ($3) do not count.
with recursive referring(oid) as (
    select conrelid from pg_constraint where contype = 'f' and confrelid = any($1::oid[]) and oid <> all($3::oid[])
  union
    select conrelid from referring r
        join pg_constraint k on k.confrelid = r.oid and k.contype = 'f' and k.oid <> all($3::oid[])
)
select n.nspname, c.relname
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.oid in (table referring) and c.relkind in ('r', 'p')
  and c.oid <> all($1::oid[] || $2::oid[]) and n.nspname !~ '^_timescaledb'
  and not exists (select from pg_inherits where inhrelid = c.oid and inhparent = any($1::oid[]))
order by 1, 2
