-- Columns of relations as a COPY sees them. A type travels in binary only if
-- every type it is made of (base of a domain, element of an array, subtype of
-- a range, attributes of a composite) has both binary functions; the reg*
-- types travel as OIDs in binary, which mean something else on the other
-- server.
--
-- "hash" says what of a column to hash so that two values have the same hash
-- only if they are the same, on any server (Column.Hash). The hash functions
-- of types follow equality and hash joins, not identity: numeric drops sign and
-- scale, NaN and infinity are one; bigint and all that is stored as one
-- (timestamps, time, pg_lsn, xid8) is folded to 32 bits; '1 day' and '24 hours'
-- are one interval, arrays forget their bounds, floats the sign of zero; an
-- enum hashes its OID, which differs between databases. So a type is hashed by
-- its own function only if that tells all its values apart; floats with the
-- sign of zero, bigint with its upper half; other built-in types by the bytes
-- that binary COPY sends, or by their text. Nondeterministic collations compare by
-- ICU's sort keys, which change with its version.
with recursive part(attrelid, attnum, typ) as (
{type parts}
), traits as (
    select p.attrelid, p.attnum,
           bool_and(t.typsend <> 0 and t.typreceive <> 0 and t.typname !~ '^_?reg'
               or t.typnamespace <> 'pg_catalog'::regnamespace and t.typsend <> 0 and t.typreceive <> 0) as binary
    from part p join pg_type t on t.oid = p.typ
    group by 1, 2
), exact(typ) as (
    select unnest(array['bool', '"char"', 'int2', 'int4', 'oid', 'date', 'uuid', 'text', 'varchar', 'name', 'bytea',
                        'inet', 'cidr', 'macaddr', 'macaddr8']::regtype[])::oid
), sent(typ) as (
    select unnest(array['int8', 'numeric', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'pg_lsn',
        'xid8']::regtype[])::oid
), float(typ) as (
    values ('float4'::regtype::oid), ('float8'::regtype::oid)
)
select a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull, a.attgenerated <> '', a.atthasdef, a.attidentity <> '',
       coalesce(o.name, ''), coalesce(o.locale, ''), coalesce(o.version, ''),
       tr.binary,
       case when coalesce(not o.deterministic, false) then 'text'
            when t.oid in (table exact) or t.oid = 'bpchar'::regtype and a.atttypmod >= 0 then 'value'
            when t.oid in (table float) then 'float'
            when t.oid = 'int8'::regtype then 'bigint'
            when t.oid in (table sent) or el.oid in (table exact union all table sent union all table float)
                then t.typsend::text
            when t.typtype = 'e' or el.oid is not null
                 or t.typnamespace = 'pg_catalog'::regnamespace and t.oid <> 'bpchar'::regtype then 'text'
            else 'record' end
from pg_attribute a
join pg_type t on t.oid = a.atttypid
left join pg_type el on el.typarray = t.oid
join traits tr on tr.attrelid = a.attrelid and tr.attnum = a.attnum
left join lateral (
{order}
) o on true
where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
