-- Which tables have an index by which a range of a column is found: a btree that
-- begins with it, else a BRIN that has it. Indexes of a part of the table, or that
-- are still being built, do not count.
select i.indrelid, max(am.amname) -- btree rather than brin
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_am am on am.oid = c.relam
join pg_attribute a on a.attrelid = i.indrelid and a.attname = $2
where i.indrelid = any($1) and i.indisvalid and i.indisready and i.indpred is null
  and (am.amname = 'btree' and i.indkey[0] = a.attnum or am.amname = 'brin' and a.attnum = any(i.indkey::int2[]))
group by 1
