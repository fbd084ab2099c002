-- The quoted name of relation $1, null if no client can name it or the name $2 is taken
-- in its schema.
select case when not (getdatabaseencoding() = 'SQL_ASCII' and c.relname ~ '[^ -~]')
             and not exists (select from pg_class o where o.relname = $2::text and o.relnamespace = c.relnamespace)
            then format('%I.%I', n.nspname, c.relname) end
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = $1
