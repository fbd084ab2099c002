    -- What decides how the values of column a are sorted. A collation's name
    -- does not: users name their own, the database's default is any, and en_US
    -- of libc is not that of ICU. Provider, locale and rules do, and the version
    -- of the library, where one is recorded. What sorts by bytes (C, POSIX, and
    -- everything of the provider "builtin") has none. jsonb sorts its strings by
    -- the database's default, and so may what is made of other types (composites,
    -- ranges of the user's); an enum sorts its labels as they were listed. The
    -- catalogs' columns have changed their names, and PostgreSQL 14 lacks some.
    select n.nspname || '.' || c.collname as name, c.collprovider = 'd' as is_default,
           c.collisdeterministic as deterministic,
           case when l.provider = 'b' or l.provider = 'c' and l.locale in ('C', 'POSIX') then 'bytes'
                else concat_ws(' ', case l.provider when 'c' then 'libc' when 'i' then 'icu'
                    else l.provider end, l.locale, 'rules ' || l.rules,
                               case when not c.collisdeterministic then 'nondeterministic' end) end as locale,
           case when l.provider <> 'b' then l.version end as version
    from pg_collation c
    join pg_namespace n on n.oid = c.collnamespace
    join pg_database d on d.datname = current_database()
    cross join lateral (select to_jsonb(c), to_jsonb(d)) j(c, d)
    cross join lateral (
        select coalesce(j.d->>'datlocprovider', 'c'),
               coalesce(j.d->>'datlocale', j.d->>'daticulocale', d.datcollate::text), j.d->>'daticurules',
               j.d->>'datcollversion'
        where c.collprovider = 'd'
      union all
        select c.collprovider::text, coalesce(j.c->>'colllocale', j.c->>'colliculocale', c.collcollate::text),
               j.c->>'collicurules', c.collversion
        where c.collprovider <> 'd') l(provider, locale, rules, version)
    where c.oid = case when a.attcollation <> 0 then a.attcollation
                       when exists (select from pg_type t
                                    where (t.oid = a.atttypid or t.typarray = a.atttypid)
                                      and (t.oid = 'jsonb'::regtype or t.typtype in ('c', 'r', 'm')
                                          and t.typnamespace <> 'pg_catalog'::regnamespace))
                       then 'pg_catalog.default'::regcollation end
  union all
    select '', false, true, 'enum ' || md5(string_agg(e.enumlabel, ',' order by e.enumsortorder)), null
    from pg_enum e
    where e.enumtypid in (a.atttypid, (select b.typbasetype from pg_type b where b.oid = a.atttypid))
    having count(*) > 0
