-- The first pending task that no lane holds, with its lock taken. Left out are
-- tasks that this lane holds or that were passed over. "offset 0" keeps the planner
-- from moving the condition inside: locks are tried one by one, in order, until
-- the first one is free.
select * from (
    {list}
    where {pending} and not priority = any({mine})
    order by {order} offset 0) t
where pg_try_advisory_lock({lock}, priority::int)
limit 1
