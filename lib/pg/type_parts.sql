-- The types that the columns of relations $1 are made of: the base of a domain, the
-- element of an array, the subtype of a range, the attributes of a composite, and so
-- on. The body of a recursive part(attrelid, attnum, typ).
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
        union all select r.rngtypid from pg_range r -- PostgreSQL 13 has no multiranges
                  where to_jsonb(r)->>'rngmultitypid' = t.oid::text
        union all select c.atttypid from pg_attribute c
                  where t.typtype = 'c' and c.attrelid = t.typrelid and c.attnum > 0 and not c.attisdropped) x(typ)
