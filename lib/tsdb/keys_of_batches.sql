-- The foreign keys of the hypertable $1 that neither its chunk $2 nor the chunk's
-- compressed relation $3 has.
select array(
    select pg_get_constraintdef(k.oid) from pg_constraint k
    where k.conrelid = $1 and k.contype = 'f'
      and not exists (select from pg_constraint o
                      where o.conrelid in ($2, $3::text::regclass) and o.contype = 'f' and o.confrelid = k.confrelid
                        and pg_get_constraintdef(o.oid) = pg_get_constraintdef(k.oid)))
