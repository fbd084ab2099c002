-- The first pending tasks that no lane holds, with their locks taken. Left out are
-- tasks that this lane holds or that were passed over. "offset 0" keeps the planner
-- from moving the condition inside: locks are tried one by one, in order, until
-- enough are free.
select * from (
    {list}
    where {pending} and not priority = any({mine})
    order by {order} offset 0) t
where pg_try_advisory_lock({lock}, priority::int)
limit {most}
