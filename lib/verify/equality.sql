-- How to hash the columns of a table so that two values which the type's =
-- calls equal have the same hash; only columns where that is not the same
-- already. A type is as coarse as the types it is made of. "value" is the type's
-- own hash function; it ignores the sign of a numeric, so where numbers are all
-- that may differ, their text without trailing zeros is hashed as well.
-- Enums hash their OID, other types may have no hash function: these columns,
-- and all made of them, are left out. So are arrays and composites before
-- PostgreSQL 14, which has no hash of records and takes an array of arrays for one.
with recursive part(attrelid, attnum, typ) as (
{type parts}
), hashable(typ) as (
    select oc.opcintype
    from pg_opclass oc
    join pg_am am on am.oid = oc.opcmethod and am.amname = 'hash'
    join pg_amproc ap on ap.amprocfamily = oc.opcfamily and ap.amproclefttype = oc.opcintype and ap.amprocnum = 2
    where oc.opcdefault
  union
    values ('varchar'::regtype::oid), ('cidr'::regtype::oid) -- as text and inet
), traits as (
    select p.attnum,
           bool_or(t.typtype = 'e' or t.typtype = 'b' and t.typcategory <> 'A'
               and t.oid not in (table hashable)) as unfit,
           bool_or(t.oid in ('numeric'::regtype, 'float4'::regtype, 'float8'::regtype, 'jsonb'::regtype)) as numbers,
           bool_or(t.oid in ('interval'::regtype, 'bpchar'::regtype)
                   or t.typtype = 'b' and t.typcategory <> 'A'
                       and t.typnamespace <> 'pg_catalog'::regnamespace) as others
    from part p
    join pg_type t on t.oid = p.typ
    group by 1
), equality(name, how) as (
    select a.attname,
           case when tr.unfit then null
                when a.atttypid = 'numeric'::regtype then 'scale'
                when a.atttypid = 'interval'::regtype then 'justified'
                when a.atttypid in ('float4'::regtype, 'float8'::regtype) or tr.others
                     or not coalesce(o.collisdeterministic, true) then 'value'
                when tr.numbers then 'numbers' end
    from pg_attribute a
    join traits tr on tr.attnum = a.attnum
    left join pg_collation o on o.oid = a.attcollation
    join pg_type t on t.oid = a.atttypid
    where a.attrelid = any($1)
      and (current_setting('server_version_num')::int >= 140000 or t.typcategory not in ('A', 'C'))
)
select name, how from equality where how is not null
