-- Columns of relations as a COPY sees them. A type travels in binary only if
-- every type it is made of (base of a domain, element of an array, subtype of
-- a range, attributes of a composite) has both binary functions; the reg*
-- types travel as OIDs in binary, which mean something else on the other
-- server. Equality of rows is hashed: "hashable" says whether the type and
-- everything in it has an extended hash function, and no enum is in it (an
-- enum hashes its OID, which differs between databases).
with recursive part(attrelid, attnum, typ) as (
    select a.attrelid, a.attnum, a.atttypid
    from pg_attribute a
    where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
  union
    select p.attrelid, p.attnum, x.typ
    from part p
    join pg_type t on t.oid = p.typ
    cross join lateral (
        select t.typbasetype where t.typtype = 'd'
        union all select t.typelem where t.typelem <> 0 and t.typlen = -1
        union all select r.rngsubtype from pg_range r where r.rngtypid = t.oid
        union all select r.rngtypid from pg_range r where r.rngmultitypid = t.oid
        union all select c.atttypid from pg_attribute c
                  where t.typtype = 'c' and c.attrelid = t.typrelid and c.attnum > 0 and not c.attisdropped) x(typ)
), traits as (
    select p.attrelid, p.attnum,
           bool_and(t.typsend <> 0 and t.typreceive <> 0 and t.typname !~ '^_?reg' or t.typnamespace <> 'pg_catalog'::regnamespace and t.typsend <> 0 and t.typreceive <> 0) as binary,
           bool_and(t.typtype <> 'e' and (
               t.typtype in ('d', 'c', 'r', 'm') or t.typelem <> 0 and t.typlen = -1
               or exists (select from pg_opclass o join pg_am m on m.oid = o.opcmethod and m.amname = 'hash'
                          join pg_amproc f on f.amprocfamily = o.opcfamily and f.amproclefttype = o.opcintype and f.amprocnum = 2
                          where o.opcdefault
                            and (o.opcintype = t.oid
                                 or exists (select from pg_cast k where k.castsource = t.oid and k.casttarget = o.opcintype
                                            and k.castmethod = 'b' and k.castcontext = 'i'))))) as hashable
    from part p join pg_type t on t.oid = p.typ
    group by 1, 2
)
select a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull, a.attgenerated <> '', a.atthasdef or a.attidentity <> '',
       coalesce(cn.nspname || '.' || co.collname, ''),
       tr.binary, tr.hashable
from pg_attribute a
join traits tr on tr.attrelid = a.attrelid and tr.attnum = a.attnum
left join pg_collation co on co.oid = a.attcollation
left join pg_namespace cn on cn.oid = co.collnamespace
where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
