-- The foreign keys of a table, and whether the role may look for the rows they
-- name and keep them from being deleted meanwhile.
select k.conname, n.nspname, c.relname,
       array(select a.attname::text from unnest(k.conkey) with ordinality u(num, ord)
             join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num order by u.ord),
       array(select a.attname::text from unnest(k.confkey) with ordinality u(num, ord)
             join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num order by u.ord),
       has_table_privilege(c.oid, 'select') and has_any_column_privilege(c.oid, 'update')
from pg_constraint k
join pg_class c on c.oid = k.confrelid
join pg_namespace n on n.oid = c.relnamespace
where k.conrelid = $1 and k.contype = 'f'
order by k.conname
