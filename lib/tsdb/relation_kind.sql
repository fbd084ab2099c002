-- The compressed relation $1 of the chunk $2: a hash of its attributes, its quoted name,
-- and the columns that were added to the chunk with a default after it was made. As a
-- hash: the server cuts some names within a character and sends them in none of its
-- encodings.
select (select md5(string_agg(concat_ws(',', quote_ident(a.attname), a.atttypid, a.atttypmod, a.attstorage,
                                        coalesce(a.attstattarget, -1), a.attcollation), ';' order by a.attnum))
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
       format('%I.%I', n.nspname, c.relname),
       array(select attname::text from pg_attribute
             where attrelid = $2 and atthasmissing and not attisdropped order by 1)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.oid = $1
