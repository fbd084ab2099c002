-- A plain table that is to become a hypertable ($1 as the user spelled it): what it is,
-- the column ($2, a name as it stands, else an identifier of SQL), its partitions or
-- children, and what it has that a hypertable cannot have.
with t as (
    select c.*, n.nspname, format('%I.%I', n.nspname, c.relname) as quoted
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = coalesce(to_regclass($1), to_regclass('public.' || $1))
), col as (
    select a.*
    from t
    join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
    where a.attname = $2 or a.attname = any(parse_ident($2))
    order by a.attname <> $2
    limit 1
)
select t.oid, t.nspname, t.relname, t.quoted,
       t.relkind in ('r', 'p'), t.relpersistence = 'p',
       exists (select from pg_inherits where inhrelid = t.oid),
       coalesce(pg_get_partkeydef(t.oid), ''),
       coalesce(col.attname, ''), coalesce(format_type(col.atttypid, null), ''),
       (with recursive child(oid) as (
            select inhrelid from pg_inherits where inhparent = t.oid
          union all
            select inhrelid from child c join pg_inherits on inhparent = c.oid)
        select coalesce(array_agg(oid), '{}') from child),
       -- Keys without the column: a unique index of a hypertable must have it.
       array(select jsonb_build_object(
                        'class', case when k.oid is null then 'pg_class'::regclass
                            else 'pg_constraint'::regclass end::oid::bigint,
                        'oid', coalesce(k.oid, i.indexrelid)::bigint,
                        'name', coalesce(k.conname, ic.relname),
                        'kind', case k.contype when 'p' then 'primary key' when 'u' then 'unique constraint'
                                               when 'x' then 'exclusion constraint' else 'unique index' end,
                        'columns', (select jsonb_agg(coalesce(a.attname, '(expression)') order by u.ord)
                                    from unnest(i.indkey::int2[]) with ordinality u(num, ord)
                                    left join pg_attribute a on a.attrelid = t.oid and a.attnum = u.num and u.num > 0
                                    where u.ord <= i.indnkeyatts))::text
             from pg_index i
             join pg_class ic on ic.oid = i.indexrelid
             left join pg_constraint k on k.conindid = i.indexrelid and k.conrelid = t.oid
                 and k.contype in ('p', 'u', 'x')
             where i.indrelid = t.oid and (i.indisunique or i.indisexclusion)
               and col.attnum <> all((i.indkey::int2[])[0:i.indnkeyatts - 1])
             order by ic.relname),
       array(select jsonb_build_object('class', 'pg_constraint'::regclass::oid::bigint, 'oid', k.oid::bigint, 'name',
           k.conname,
                                       'kind', 'foreign key', 'columns',
                                       jsonb_build_array(k.conrelid::regclass::text))::text
             from pg_constraint k where k.confrelid = t.oid and k.contype = 'f' and k.conparentid = 0 order by k.oid),
       array(select oid from pg_rewrite where ev_class = t.oid order by rulename),
       array(select rulename::text from pg_rewrite where ev_class = t.oid order by rulename),
       array(select tgname::text from pg_trigger where tgrelid = t.oid and not tgisinternal and tgtype & 7 = 7
           order by tgname)
from t
left join col on true
