-- One line per chunk of the source: its name in the tests, and a digest of the
-- rows before the completion point, and of what the trigger has seen of them.
select relation || '/' || to_char(time, 'YYYY-MM-DD') || coalesce('/' || part, ''),
       count(*) || ' rows, ' || sum(hashtextextended(row, 0)::numeric)
from (
    select 'plain' as relation, time, null::int as part, p::text as row from plain p
    union all select 'linked', time, null, l::text from linked l
    union all select 'coarse', time, null, c::text from coarse c
    union all select 'hashed', time, part(dev), h::text from hashed h
    union all select 'packed', time, null, k::text from packed k
    union all select 'tight', time, null, t::text from tight t
    union all select 'watched', time, null, w::text from watched w
    union all select 'heaped', time, null, h::text from heaped h
    union all select 'listed', time, null, l::text from {listed} l
    union all select 'watched', time, null, 'seen ' || s::text from seen s
) r
where time < '{until}'
group by 1
