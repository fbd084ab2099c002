-- The sequences that give columns their values, and those columns, not those of chunks
-- ($1): their hypertables have the same. A sequence that cycles may repeat values.
select format('%I.%I', sn.nspname, sc.relname), s.seqincrement,
       array_agg(format('%I.%I', n.nspname, c.relname) order by u.tab, u.col),
       array_agg(quote_ident(a.attname) order by u.tab, u.col)
from pg_sequence s
join pg_class sc on sc.oid = s.seqrelid
join pg_namespace sn on sn.oid = sc.relnamespace
cross join lateral (
    select refobjid, refobjsubid from pg_depend
    where classid = 'pg_class'::regclass and objid = s.seqrelid and objsubid = 0
      and refclassid = 'pg_class'::regclass and refobjsubid > 0 and deptype in ('a', 'i')
  union
    select ad.adrelid, ad.adnum
    from pg_depend d join pg_attrdef ad on d.classid = 'pg_attrdef'::regclass and ad.oid = d.objid
    where d.refclassid = 'pg_class'::regclass and d.refobjid = s.seqrelid) u(tab, col)
join pg_class c on c.oid = u.tab and c.relkind in ('r', 'p')
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = u.tab and a.attnum = u.col
where not s.seqcycle and c.oid <> all($1::oid[])
  and a.atttypid = any(array['int2', 'int4', 'int8', 'numeric']::regtype[])
  and sn.nspname !~ '^(pg_|information_schema$|_timescaledb_|__backfill)'
  and n.nspname !~ '^(pg_|_timescaledb_|__backfill)'
group by 1, 2
order by 1
