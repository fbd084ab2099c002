-- What a change of rows of the hypertable $1 affects (whose number is $2): the users' row
-- triggers on INSERT (they fire on a COPY into its chunks) and on DELETE, a
-- continuous aggregate on it, and the columns of a key by which another table
-- references it. The trigger that logs invalidations (up to 2.22) and the one that keeps
-- rows out of the root are TimescaleDB's own. Foreign keys via pg_trigger: it has an
-- index on the table, pg_constraint has none on what a constraint references.
with t as (
    select tgname::text, tgtype from pg_trigger
    where tgrelid = $1 and not tgisinternal and tgtype & 1 = 1 and tgenabled in ('O', 'A')
      and tgname not in ('ts_insert_blocker', 'ts_cagg_invalidation_trigger'))
select array(select tgname from t where tgtype & 4 <> 0 order by 1),
       array(select tgname from t where tgtype & 8 <> 0 order by 1),
       exists (select from _timescaledb_catalog.continuous_agg where raw_hypertable_id = $2),
       (select array(select a.attname::text from unnest(c.confkey) k
                     join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k)
        from pg_trigger g
        join pg_constraint c on c.oid = g.tgconstraint
        where g.tgrelid = $1 and c.confrelid = $1 and c.contype = 'f'
        limit 1)
