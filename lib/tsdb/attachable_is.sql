-- Whether the scratch hypertable $1 has one chunk, whose columns and checks are marked as
-- inherited only and whose index was taken for the hypertable's, not built again.
select count(*) = 1
       and not bool_or(exists (select from pg_attribute a
           where a.attrelid = inhrelid and a.attnum > 0 and a.attislocal))
       and not bool_or(exists (select from pg_constraint k
           where k.conrelid = inhrelid and k.contype = 'c' and k.coninhcount > 0 and k.conislocal))
       and not bool_or((select count(*) from pg_index i where i.indrelid = inhrelid) <> 1)
from pg_inherits where inhparent = $1::text::regclass
