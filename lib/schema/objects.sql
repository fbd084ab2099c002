-- What the users' objects are, in lines of an object, a part of it and its value,
-- with a statement that gives it that value: "" for none. A part '' is the object
-- itself. "of" is the relation that it belongs to, '' for none. $1 are the OIDs of
-- relations that are TimescaleDB's (chunks), $2 the views of continuous aggregates.
with ours as (
    select n.oid, n.nspname from pg_namespace n
    where n.nspname !~ '^(pg_|information_schema$|_timescaledb_|timescaledb_|__backfill)'
), extension as materialized (
    select classid, objid from pg_depend where deptype = 'e' and refclassid = 'pg_extension'::regclass
), rel as materialized (
    select c.*, format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join ours n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
      and c.oid <> all($1::oid[] || $2::oid[])
      and not exists (select from extension where classid = 'pg_class'::regclass and objid = c.oid)
), lines(kind, name, "of", part, value, help) as (
    select case r.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                          else 'table' end, r.name, '', x.part, x.value, x.help
    from rel r
    cross join lateral (values
        ('', '', ''),
        ('definition', case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid) end,
         case when r.relkind = 'v' then format('create or replace view %s as %s', r.name, pg_get_viewdef(r.oid))
              else '' end),
        ('partitioned by', case when r.relkind = 'p' then pg_get_partkeydef(r.oid) end, ''),
        ('child of', (select string_agg(format('%I.%I', pn.nspname, p.relname), ', ' order by i.inhseqno)
                      from pg_inherits i join pg_class p on p.oid = i.inhparent
                                    join pg_namespace pn on pn.oid = p.relnamespace
                      where i.inhrelid = r.oid), ''),
        ('partition', case when r.relispartition then pg_get_expr(r.relpartbound, r.oid) end, ''),
        ('row security', case when r.relrowsecurity then 'on' when r.relkind in ('r', 'p') then 'off' end,
         format('alter table %s %s row level security', r.name,
                case when r.relrowsecurity then 'enable' else 'disable' end))
    ) x(part, value, help)
    where x.value is not null
  union all
    select 'column', format('%s.%I', r.name, a.attname), r.name, x.part, x.value, x.help
    from rel r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
    left join pg_collation o on o.oid = a.attcollation and o.collname <> 'default'
    cross join lateral (select format('alter table %s alter column %I ', r.name, a.attname)) alter_column(s)
    cross join lateral (values
        ('', '', format('alter table %s add column %I %s', r.name, a.attname,
                        format_type(a.atttypid, a.atttypmod))),
        ('type', format_type(a.atttypid, a.atttypmod), s || 'type ' || format_type(a.atttypid, a.atttypmod)),
        ('not null', a.attnotnull::text, s || case when a.attnotnull then 'set not null' else 'drop not null' end),
        ('default', case when a.attgenerated = '' then coalesce(pg_get_expr(d.adbin, d.adrelid), 'none')
                         else 'none' end,
         s || coalesce('set default ' || pg_get_expr(d.adbin, d.adrelid), 'drop default')),
        ('generated', case when a.attgenerated <> '' then pg_get_expr(d.adbin, d.adrelid) else 'no' end, ''),
        ('identity', case a.attidentity when 'a' then 'always' when 'd' then 'by default' else 'no' end,
         -- whether the other side has none, or of the other kind: its sequence starts anew
         s || 'drop identity if exists'
           || case when a.attidentity <> '' then format(', alter column %I add generated %s as identity', a.attname,
                       case a.attidentity when 'a' then 'always' else 'by default' end) else '' end),
        ('collation', coalesce(o.collname, 'default'), '')
    ) x(part, value, help)
    where r.relkind in ('r', 'p', 'f') or x.part in ('', 'type')
  union all
    select 'constraint', format('%I of %s', k.conname, r.name), r.name, x.part, x.value, x.help
    from rel r
    join pg_constraint k on k.conrelid = r.oid and k.contype in ('p', 'u', 'c', 'f', 'x') and k.conparentid = 0
    cross join lateral (values
        ('', '', format('alter table %s add constraint %I %s', r.name, k.conname, pg_get_constraintdef(k.oid))),
        ('definition', pg_get_constraintdef(k.oid),
         format('alter table %1$s drop constraint %2$I, add constraint %2$I %3$s', r.name, k.conname,
                pg_get_constraintdef(k.oid)))
    ) x(part, value, help)
  union all
    select 'index', format('%I.%I', n.nspname, i.relname), r.name, x.part, x.value, x.help
    from rel r
    join pg_index ix on ix.indrelid = r.oid
    join pg_class i on i.oid = ix.indexrelid
    join ours n on n.oid = i.relnamespace
    cross join lateral (values
        ('', '', pg_get_indexdef(i.oid)),
        ('definition', replace(pg_get_indexdef(i.oid), ' ON ONLY ', ' ON '), ''),
        ('valid', ix.indisvalid::text, format('reindex index %I.%I', n.nspname, i.relname))
    ) x(part, value, help)
    where not exists (select from pg_constraint k
                      where k.conindid = i.oid and k.conrelid = r.oid and k.contype in ('p', 'u', 'x'))
      and not exists (select from pg_inherits where inhrelid = i.oid)
  union all
    select 'trigger', format('%I of %s', t.tgname, r.name), r.name, x.part, x.value, x.help
    from rel r
    join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
    cross join lateral (values
        ('', '', pg_get_triggerdef(t.oid)),
        ('definition', pg_get_triggerdef(t.oid), ''),
        ('enabled', case t.tgenabled when 'O' then 'yes' when 'D' then 'no' when 'R' then 'on replicas'
                                     else 'always' end, '')
    ) x(part, value, help)
    where not exists (select from extension where classid = 'pg_proc'::regclass and objid = t.tgfoid)
  union all
    select 'rule', format('%I of %s', w.rulename, r.name), r.name, x.part, x.value, x.help
    from rel r
    join pg_rewrite w on w.ev_class = r.oid and w.rulename <> '_RETURN'
    cross join lateral (values
        ('', '', pg_get_ruledef(w.oid)),
        ('definition', pg_get_ruledef(w.oid), '')
    ) x(part, value, help)
  union all
    select 'policy', format('%I of %s', p.polname, r.name), r.name, x.part, x.value, ''
    from rel r
    join pg_policy p on p.polrelid = r.oid
    cross join lateral (values
        ('', ''),
        ('definition', concat_ws(' ',
            p.polcmd, case when p.polpermissive then 'permissive' else 'restrictive' end,
            (select string_agg(case u when 0 then 'public' else pg_get_userbyid(u) end, ', '
                               order by u = 0, pg_get_userbyid(u)) from unnest(p.polroles) u),
            'using ' || pg_get_expr(p.polqual, r.oid), 'with check ' || pg_get_expr(p.polwithcheck, r.oid)))
    ) x(part, value)
  union all
    select case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end,
           format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), '',
           x.part, x.value, x.help
    from pg_proc p
    join ours n on n.oid = p.pronamespace
    cross join lateral (values
        ('', '', case when p.prokind <> 'a' then pg_get_functiondef(p.oid) else '' end),
        ('definition', case when p.prokind <> 'a' then pg_get_functiondef(p.oid)
                            else format_type(p.prorettype, null) end,
         case when p.prokind <> 'a' then pg_get_functiondef(p.oid) else '' end)
    ) x(part, value, help)
    where not exists (select from extension where classid = 'pg_proc'::regclass and objid = p.oid)
      -- The constructors of a range are parts of it.
      and not exists (select from pg_depend d
                      where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
  union all
    select 'type', format('%I.%I', n.nspname, t.typname), '', x.part, x.value, ''
    from pg_type t
    join ours n on n.oid = t.typnamespace
    left join pg_class c on c.oid = t.typrelid
    cross join lateral (values
        ('', ''),
        ('definition', case
            when t.typtype = 'e' then
                (select 'enum ' || string_agg(quote_literal(enumlabel), ', ' order by enumsortorder)
                 from pg_enum where enumtypid = t.oid)
            when t.typtype = 'd' then
                concat_ws(' ', 'domain', format_type(t.typbasetype, t.typtypmod), 'default ' || t.typdefault,
                    case when t.typnotnull then 'not null' end,
                    (select string_agg(pg_get_constraintdef(k.oid), ' ' order by k.conname)
                     from pg_constraint k where k.contypid = t.oid and k.contype = 'c'))
            when t.typtype = 'r' then
                (select 'range of ' || format_type(g.rngsubtype, null) from pg_range g where g.rngtypid = t.oid)
            when t.typtype = 'c' then
                (select 'composite ' || string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)),
                                                   ', ' order by a.attnum)
                 from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) end)
    ) x(part, value)
    where (t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and c.relkind = 'c')
      and not exists (select from extension where classid = 'pg_type'::regclass and objid = t.oid)
  union all
    select 'sequence', format('%I.%I', n.nspname, c.relname), '', x.part, x.value, ''
    from pg_class c
    join ours n on n.oid = c.relnamespace
    join pg_sequence s on s.seqrelid = c.oid
    cross join lateral (values
        ('', ''),
        ('definition', format('%s increment %s minvalue %s maxvalue %s start %s cache %s%s',
                              format_type(s.seqtypid, null), s.seqincrement, s.seqmin, s.seqmax, s.seqstart,
                              s.seqcache, case when s.seqcycle then ' cycle' else '' end))
    ) x(part, value)
    where not exists (select from extension where classid = 'pg_class'::regclass and objid = c.oid)
  union all
    select 'extension', quote_ident(extname), '', '', '', format('create extension %I', extname)
    from pg_extension where extname not in ('plpgsql', 'timescaledb')
)
select kind, name, "of", part, value, help from lines order by 1, 2, 4
