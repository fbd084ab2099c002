-- The relations that a slice is read from, in the record's order: are they still
-- there and the relation itself or below it, what are they, and have they been
-- rewritten? The file is asked of the storage as well, which tells of a rewrite that
-- this snapshot does not show. The first row is the relation itself.
with recursive tree(oid) as (
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2
  union
    select i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid
)
select coalesce(c.relkind::text, ''),
       coalesce(c.oid in (select oid from tree), false),
       coalesce(pg_relation_filenode(c.oid)::text, ''),
       coalesce(pg_relation_filenode(c.oid) is distinct from nullif(c.relfilenode, 0), false)
from (select 0 as nth, $1::text as schema, $2::text as name
      union all
      select nth, schema, name from unnest($3::text[], $4::text[]) with ordinality l(schema, name, nth)) l
left join pg_namespace n on n.nspname = l.schema
left join pg_class c on c.relnamespace = n.oid and c.relname = l.name
order by l.nth
