-- What holds the rows of a relation: its partitions that have none themselves,
-- or itself and all children that inherit from it. Sorted by bytes, not by a
-- collation. pg_relation_filenode(), unlike pg_class, shows a rewrite by others that came
-- after the snapshot.
with recursive tree(oid) as (
    select $1::oid
  union
    select i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid
)
select n.nspname, c.relname, c.oid, c.relkind::text, coalesce(am.amname, ''),
       coalesce(pg_relation_filenode(c.oid)::text, ''),
       coalesce(case when c.relkind in ('r', 'm')
           then pg_relation_size(c.oid) end, 0) / current_setting('block_size')::bigint,
       coalesce(case when c.relkind in ('r', 'm') then pg_table_size(c.oid) end, 0),
       greatest(c.reltuples, 0)::bigint,
       has_table_privilege(c.oid, 'select') or has_any_column_privilege(c.oid, 'select')
from tree t
join pg_class c on c.oid = t.oid
join pg_namespace n on n.oid = c.relnamespace
left join pg_am am on am.oid = c.relam
where c.relkind <> 'p'
order by n.nspname collate "C", c.relname collate "C"
