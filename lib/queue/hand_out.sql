-- The first pending tasks that no lane holds, with their locks taken. Left out are
-- tasks that this lane holds or that were passed over. "offset 0" keeps the planner
-- from moving the condition inside: locks are tried one by one, in order, until
-- enough are free. Where few are pending a lane holds two: others want their share, and
-- a lane that is held up should not keep what they could do. These are counted in order,
-- too: by the index, without a look at those that are done.
select * from (
    {list}
    where {pending} and {from} and not priority = any({mine})
    order by {order} offset 0) t
where pg_try_advisory_lock({lock}, priority::int)
limit greatest(({held} < 2)::int, least({most}::bigint, -{held}
    + (select count(*)
       from (select from __backfill.task where {pending} and {from} order by {order} limit 256) few) / 16))
