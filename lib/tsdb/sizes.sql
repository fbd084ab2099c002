-- The sizes of the compressed relation $1: heap, toast, indexes.
select pg_table_size(c.oid) - s.toast, s.toast, pg_indexes_size(c.oid)
from pg_class c
cross join lateral (select coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0) as toast) s
where c.oid = $1::text::regclass
