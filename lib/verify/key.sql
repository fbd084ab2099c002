-- The columns of a unique key of a table: the primary key, else the one with
-- the fewest columns. Partial and expression indexes identify no row.
select array_agg(a.attname order by k.ord)
from pg_index i
cross join unnest(i.indkey::int2[]) with ordinality k(attnum, ord)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
    and k.ord <= i.indnkeyatts
group by i.indexrelid, i.indisprimary
order by i.indisprimary desc, count(*), i.indexrelid
limit 1
