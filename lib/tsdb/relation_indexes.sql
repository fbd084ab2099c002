-- Btree indexes of a compressed relation, column by column (the hypercore
-- access method adds one of another kind and maintains it itself). Names are bytes,
-- as in relation.sql.
select i.indexrelid, case when getdatabaseencoding() = 'SQL_ASCII' then convert_to(a.attname::text, 'SQL_ASCII')
    else textsend(a.attname::text) end, k.option & 1 = 1, k.option & 2 = 2
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_am m on m.oid = c.relam and m.amname = 'btree'
cross join lateral unnest(i.indkey::int2[], i.indoption::int2[]) with ordinality k(attnum, option, n)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = $1 and i.indisvalid
order by 1, k.n
